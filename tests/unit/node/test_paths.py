"""Where files are."""

from pathlib import Path

from node.paths import paths_below, user_paths


def test_everything_is_below_home() -> None:
    paths = paths_below(Path("/srv/dslm"))
    for path in (paths.config_file, paths.identity_file, paths.log_file, paths.pid_file):
        assert path.is_relative_to("/srv/dslm")
    assert paths.runtime == Path("/srv/dslm/state/run")


def test_a_relative_home_is_made_absolute() -> None:
    assert paths_below(Path("here")).data == Path.cwd() / "here" / "data"


def test_sockets_have_room_however_long_the_home_is() -> None:
    first, second = paths_below(Path("/" + "a" * 200)), paths_below(Path("/" + "b" * 200))
    assert len(str(first.runtime)) < 73
    assert first.runtime != second.runtime
    assert first.runtime == paths_below(Path("/" + "a" * 200)).runtime


def test_by_platform_the_parts_have_folders_of_their_own() -> None:
    paths = user_paths()
    assert len({paths.config_file.parent, paths.data, paths.state, paths.models}) == 4
    assert all(path.is_absolute() for path in (paths.data, paths.state, paths.models))
