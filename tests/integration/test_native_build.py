"""How the compiled step comes to be, and what is said where it cannot."""

import fcntl
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from node.engine.native.build import Build, BuildSettings, find_build, native_library
from node.engine.native.library import BatchStruct, ModelStruct, NativeLibrary
from node.engine.native.reasons import NativeUnfit
from tests.integration.native_models import built

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("library")]


@pytest.mark.slow
def test_it_is_compiled_once_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "kernels"
    built(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (made,) = folder.iterdir()
    before = made.stat()
    lines: list[str] = []
    native_library(BuildSettings(folder), lines.append)
    assert not lines
    assert made.stat() == before
    other = BuildSettings(folder, flags=(*BuildSettings(folder).flags, "-DOTHER"))
    native_library(other, lines.append)
    assert len(lines) == 1
    assert "compiling" in lines[0]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.slow
def test_of_two_that_need_it_at_once_one_builds(tmp_path: Path) -> None:
    made: list[NativeLibrary] = []
    noting = tmp_path / "noting"
    noting.write_text(f'#!/bin/sh\n[ $1 = --version ] || echo >> {tmp_path}/builds\nexec g++ "$@"')
    noting.chmod(0o700)
    settings = BuildSettings(tmp_path / "kernels", compilers=(str(noting),))
    threads = [
        threading.Thread(target=lambda: made.append(native_library(settings))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert len(list(settings.folder.iterdir())) == 1
    assert (tmp_path / "builds").read_text() == "\n"


def test_without_a_compiler(tmp_path: Path) -> None:
    with pytest.raises(NativeUnfit, match=r"no C\+\+ compiler \(no-such-compiler\)"):
        native_library(BuildSettings(tmp_path / "kernels", compilers=("no-such-compiler",)))


def test_with_a_compiler_that_fails(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text(
        "#!/bin/sh\n[ $1 = --version ] && exit\necho 'x.h: error: no sense' >&2\nexit 1"
    )
    broken.chmod(0o700)
    folder = tmp_path / "kernels"
    with pytest.raises(NativeUnfit, match=r"cannot compile the kernels: x.h: error: no sense"):
        native_library(BuildSettings(folder, compilers=(str(broken),)))
    assert list(folder.iterdir()) == []


def test_what_the_compiler_makes_must_load(tmp_path: Path) -> None:
    useless = tmp_path / "useless"
    useless.write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && echo no > "$2"; shift; done'
    )
    useless.chmod(0o700)
    with pytest.raises(NativeUnfit, match="cannot be loaded"):
        native_library(BuildSettings(tmp_path / "kernels", compilers=(str(useless),)))


def test_on_a_cpu_that_lacks_something(tmp_path: Path) -> None:
    with pytest.raises(NativeUnfit, match="no such_bits"):
        native_library(BuildSettings(tmp_path / "kernels", needed=("such_bits",)))


def test_code_that_others_could_write_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(NativeUnfit, match="chmod 700"):
        native_library(BuildSettings(folder))


@pytest.fixture
def quick(tmp_path: Path) -> BuildSettings:
    """A compiler that is quick, and makes what cannot be loaded; the folder cannot be made."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && echo no > "$2"; shift; done'
    )
    compiler.chmod(0o700)
    (tmp_path / "file").touch()
    folder, own = tmp_path / "file" / "kernels", tmp_path / "state" / "kernels"
    return BuildSettings(folder, own, compilers=(str(compiler),), lock_seconds=0.1)


def test_where_the_first_folder_cannot_be_used_it_is_the_other(quick: BuildSettings) -> None:
    own = quick.fallback
    assert own is not None
    before = find_build(quick)
    assert (before.path.parent, before.is_made) == (own, False)
    assert not own.exists(), "looking changes nothing"
    lines: list[str] = []
    with pytest.raises(NativeUnfit, match="cannot be loaded"):
        native_library(quick, lines.append)
    assert f"compiled kernels are kept in {own}" in lines[0]
    assert find_build(quick) == Build(before.path, True)
    assert own.stat().st_mode & 0o777 == 0o700
    with pytest.raises(NativeUnfit, match=r"Not a directory.*open to other users"):
        own.chmod(0o777)
        native_library(quick)


def test_a_folder_that_others_write_is_passed_over(quick: BuildSettings, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(NativeUnfit, match="cannot be loaded"):
        native_library(replace(quick, folder=shared))
    assert list(shared.iterdir()) == []
    assert find_build(replace(quick, folder=shared)).path.parent == quick.fallback


def test_who_compiles_for_ever_is_not_waited_for(quick: BuildSettings, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        alone = replace(quick, folder=folder, fallback=None)
        with pytest.raises(NativeUnfit, match=r"has been compiling .* for more than 0.1 s"):
            native_library(alone)
        with pytest.raises(NativeUnfit, match="cannot be loaded"):
            native_library(replace(alone, fallback=quick.fallback))
    finally:
        os.close(held)
    assert quick.fallback is not None
    assert len(list(quick.fallback.iterdir())) == 1


def test_threads_end_with_the_team(library: NativeLibrary) -> None:
    before = len(list(Path("/proc/self/task").iterdir()))
    team = library.team(5)
    assert len(list(Path("/proc/self/task").iterdir())) == before + 4
    team.close()
    team.close()
    assert len(list(Path("/proc/self/task").iterdir())) == before
    with pytest.raises(RuntimeError):
        team.step(ModelStruct(), BatchStruct())
    forgotten = library.team(3)
    del forgotten
    assert len(list(Path("/proc/self/task").iterdir())) == before
