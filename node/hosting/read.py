"""From a path to a model: which format is it?

Knows the formats by their outside; must not know their inside.
"""

from pathlib import Path

from node.hosting.gguf_model import read_gguf_model
from node.hosting.safetensors import read_huggingface_model
from node.hosting.weights import ModelWeights
from protocols.errors import ModelFileError

_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})


def read_model(path: Path) -> ModelWeights:
    """The model at `path`: a GGUF file, a Hugging Face folder, or a folder with one GGUF file.

    Only headers are read (and all bytes once, for the digest). `ModelFileError` says what is wrong
    and what to do.
    """
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise ModelFileError(
            f"There is no model at {path}. Give a .gguf file or a folder with config.json, "
            "or get the default model with `dslm pull`."
        )
    if (path / "config.json").is_file():
        return read_huggingface_model(path)
    candidates = sorted(path.glob("*.gguf"))
    if len(candidates) == 1:
        return read_gguf_model(candidates[0])
    if candidates:
        names = ", ".join(candidate.name for candidate in candidates[:5])
        raise ModelFileError(f"{path} holds several models: {names}. Name one of the files.")
    raise ModelFileError(
        f"{path} holds neither config.json nor a .gguf file, so there is no model to read."
    )


def _read_file(path: Path) -> ModelWeights:
    if path.suffix in _PICKLES:
        raise ModelFileError(
            f"{path} is a pickle, which can run code when opened. "
            "Get the safetensors or GGUF version of this model."
        )
    if path.suffix == ".safetensors":
        raise ModelFileError(
            f"{path} holds weights alone. Give the folder that also has its config.json."
        )
    return read_gguf_model(path)
