"""The flags of `up` and `serve`."""

from pathlib import Path

import pytest

from node.cli.exits import UsageError
from node.cli.settings import SettingFlags
from node.cli.verb import Invocation


def test_named_and_free_settings() -> None:
    flags = SettingFlags(name="bob", api="127.0.0.1:1", others=["log.level=debug", "a.b=c=d"])
    assert flags.pairs() == (
        ("api.listen", "127.0.0.1:1"),
        ("node.name", "bob"),
        ("log.level", "debug"),
        ("a.b", "c=d"),
    )


def test_a_setting_without_a_value() -> None:
    with pytest.raises(UsageError, match=r"log\.level"):
        SettingFlags(others=["log.level"]).pairs()


def test_serve_gets_the_same_flags_with_absolute_paths() -> None:
    flags = SettingFlags(["a.gguf", "none"], name="bob")
    arguments = flags.arguments(Invocation(home=Path("here"), config_file=Path("/etc/x.toml")))
    assert arguments == [
        *("--home", str(Path("here").absolute())),
        *("--config", "/etc/x.toml"),
        *("--set", "node.name=bob"),
        *("--model", "a.gguf", "--model", "none"),
    ]


def test_the_precision_is_a_setting_of_the_engine() -> None:
    flags = SettingFlags(precision="int4")
    assert flags.pairs() == (("engine.precision", "int4"),)
    assert flags.arguments(Invocation()) == ["--set", "engine.precision=int4"]
