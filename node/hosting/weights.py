"""A model on disk as dslm sees it, whichever format it is in.

Knows what a model consists of and how files are named by their content; the formats' own modules
(`gguf_model`, `safetensors`) make these values, `node.hosting.read` chooses between them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.engine.config import LlamaConfig
from node.engine.model import TensorSource
from node.engine.weights.scheme import Precision, WeightSource
from node.hosting.tokenizer import ChatTokenizer
from protocols.errors import ModelFileError
from protocols.ids import Digest


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """A model that was found whole: every weight is there in the right shape, none is read yet.

    `digest` is the SHA-256 over weights and tokenizer: two models with the same digest give the
    same logits for the same text. `name` is fit for a specialist id; `licence` is an SPDX id as
    the file states it, or empty. `tensors` gives floats; `stored` what is packed as it is packed.
    `kept_as` is the precision that keeps most of the file as it is, or None for a file of floats.
    """

    config: LlamaConfig
    tensors: TensorSource
    stored: WeightSource
    kept_as: Precision | None
    tokenizer: ChatTokenizer
    digest: Digest
    name: str
    licence: str


def check_tensors(path: Path, config: LlamaConfig, found: Mapping[str, tuple[int, ...]]) -> None:
    """`ModelFileError` unless `found` has exactly the tensors of `config`, in their shapes."""
    if config.layers > len(found):  # before a shape for each of them is written down
        raise ModelFileError(
            f"{path} says that it has {config.layers} layers, but holds {len(found)} tensors. "
            "It may be damaged or incomplete: get it again."
        )
    wanted = config.tensor_shapes()
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise ModelFileError(
            f"{path} lacks {len(missing)} of the model's tensors, {missing[0]} for one. "
            "It may be damaged or incomplete: get it again."
        )
    extra = sorted(found.keys() - wanted.keys())
    if extra:
        raise ModelFileError(
            f"{path} holds {extra[0][:80]}, which a model of its kind does not have; "
            "computing without it would give wrong answers."
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ModelFileError(
                f"{path}: {name} has shape {found[name]}, but the model's settings say {shape}."
            )


def digest_of(files: Sequence[Path]) -> Digest:
    """The SHA-256 of one file's bytes, or of the names and digests of several, in name order."""
    if len(files) == 1:
        return Digest(_file_digest(files[0]))
    listing = "".join(f"{file.name} {_file_digest(file)}\n" for file in sorted(files))
    return Digest(hashlib.sha256(listing.encode()).hexdigest())


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


def name_from(text: str) -> str:
    """`text` in the alphabet of specialist ids; never empty."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text.lower())
    return kept.strip("._-")[:80] or "model"
