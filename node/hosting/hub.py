"""Getting a safetensors repository from the Hugging Face hub.

Knows the hub's client library, which is imported only when it is needed; must not know where the
files end up.
"""

from collections.abc import Sequence
from pathlib import Path

from node.hosting.config_json import read_config_json
from node.hosting.download import Progress, require_space
from protocols.errors import ModelFileError, UserError

_SUFFIXES = (".safetensors", ".json", ".jinja")
_SECOND_COPY = "consolidated"
"""How Mistral and Meta name the same weights in a form of their own, beside the ones we read."""


def fetch_repository(name: str, revision: str, target: Path, progress: Progress) -> None:
    """Put the weights, configuration and tokenizer of `name` into the new folder `target`.

    Only safetensors and JSON are taken, never pickled weights or code. `UserError` when the hub
    cannot be reached or does not know the name.
    """
    import httpx2  # noqa: PLC0415  (the hub library lets its errors through)
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415  (0.5 s, seldom needed)
    from huggingface_hub.errors import (  # noqa: PLC0415
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        files = HfApi().model_info(name, revision=revision, files_metadata=True).siblings or []
        sizes = {file.rfilename: file.size or 0 for file in files}
        wanted = wanted_files(name, list(sizes))
        require_space(target.parent, sum(sizes[file] for file in wanted), name)
        progress.note(f"getting {name}@{revision} from the Hugging Face hub")
        # The settings first: what we cannot compute is refused before its weights are fetched.
        for part in (["config.json"], wanted):
            snapshot_download(name, revision=revision, allow_patterns=part, local_dir=target)
            read_config_json(target / "config.json")
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelFileError(
            f"the Hugging Face hub has no model {name!r} at revision {revision!r} that you may read"
        ) from error
    except (httpx2.HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(_unreachable(name, error)) from error


def wanted_files(name: str, files: Sequence[str]) -> list[str]:
    """Of a repository's files, those that a model is read from. `ModelFileError` without weights.

    Folders within hold other forms of the model, which would be fetched for nothing.
    """
    wanted = [
        file
        for file in files
        if "/" not in file and file.endswith(_SUFFIXES) and not file.startswith(_SECOND_COPY)
    ]
    if not any(file.endswith(".safetensors") for file in wanted):
        raise ModelFileError(
            f"{name} has no safetensors weights; pickled ones can run code and are never loaded"
        )
    # The library takes names for patterns.
    return [file for file in wanted if not set(file) & set("*?[")]


def _unreachable(name: str, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"cannot get {name} from the Hugging Face hub ({reason}). Check the network and "
        "HF_HUB_OFFLINE, or copy the model folder here and give its path"
    )
