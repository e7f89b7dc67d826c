import pytest

from node.cli.app import main
from protocols import versions


def test_the_version_is_told_as_people_ask_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dslm {versions.SOFTWARE}\n"
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"dslm {versions.SOFTWARE} (")
