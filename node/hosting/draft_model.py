"""A small model that guesses for a larger one, from a file.

Knows files and vocabularies; must not know how guesses are used.
"""

from dataclasses import dataclass
from pathlib import Path

from node.engine.model import LlamaModel
from node.engine.speculation.model_drafter import ModelDrafter
from node.engine.weights.scheme import Precision, QuantisedSource, activation_type
from node.hosting.memory import cache_bytes
from node.hosting.read import read_model
from node.hosting.weights import ModelWeights
from protocols.errors import ModelFileError


@dataclass(frozen=True, slots=True)
class DraftModel:
    """Ready to guess; `size` is in bytes, its cache included."""

    drafter: ModelDrafter
    size: int


def read_draft_model(path: Path, base: ModelWeights, positions: int) -> ModelWeights:
    """What is in `path`, which will guess for `base`; nothing of it is in memory yet.

    `ModelFileError` if it cannot be read, if its tokens are not those of `base`, or if it was made
    for texts of fewer than `positions` tokens.
    """
    weights = read_model(path)
    _check_vocabulary(path, weights, base)
    if weights.config.context_length < positions:
        raise ModelFileError(
            f"{path} cannot guess for {base.name}: it was made for {weights.config.context_length} "
            f"tokens, and answers may have {positions}. Give the model a smaller context."
        )
    return weights


def load_draft_model(
    weights: ModelWeights, precision: Precision, positions: int, cache_tokens: int
) -> DraftModel:
    """The model with these `weights`, with room for `cache_tokens` tokens."""
    source = QuantisedSource(weights.stored, weights.config, precision)
    model = LlamaModel(weights.config, source, activation_type(precision), positions)
    cache = cache_bytes(weights.config, cache_tokens, precision)
    return DraftModel(ModelDrafter(model, cache_tokens), model.size + cache)


def _check_vocabulary(path: Path, weights: ModelWeights, base: ModelWeights) -> None:
    """A guess is an id: it has to mean the same text to both."""
    ours, theirs = (one.tokenizer.tokenizer.get_vocab() for one in (weights, base))
    if ours != theirs:
        shared = sum(theirs.get(text) == number for text, number in ours.items())
        raise ModelFileError(
            f"{path} cannot guess for {base.name}: of its {len(ours)} tokens {shared} are the same "
            f"there. A model that guesses must have the very same vocabulary."
        )
