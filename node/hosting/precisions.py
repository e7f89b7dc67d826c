"""What each precision costs a model: its bytes, and how well it still predicts a text.

Knows loading and perplexity; must not know where the text is from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.engine.model import LlamaModel
from node.engine.perplexity import perplexity
from node.engine.weights.scheme import Precision, QuantisedSource, activation_type
from node.hosting.read import read_model
from protocols.errors import UserError

WINDOW = 512
"""Tokens that a prediction can look back on; see `node.engine.perplexity`."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One precision: bytes of weights and perplexity. `ratio` is to the perplexity in fp32."""

    precision: Precision
    weights: int
    perplexity: float
    ratio: float


def measure_precisions(
    path: Path,
    text: str,
    tokens: int,
    precisions: Sequence[Precision],
) -> Iterator[Cost]:
    """The cost of each of `precisions` over the first `tokens` tokens of `text`; fp32 is first.

    fp32 is always measured: it is what the others are compared with. `UserError` for a text of
    less than two tokens, `ModelFileError` for a model that cannot be read.
    """
    weights = read_model(path)
    ids = weights.tokenizer.encode_text(text)[:tokens]
    if len(ids) < 2:
        raise UserError("the text is too short: a perplexity needs two tokens")
    window = min(WINDOW, weights.config.context_length)
    exact = 0.0
    wanted: list[Precision] = ["fp32", *(one for one in precisions if one != "fp32")]
    for precision in wanted:
        source = QuantisedSource(weights.stored, weights.config, precision)
        model = LlamaModel(weights.config, source, activation_type(precision), window)
        value = perplexity(model, ids, window)
        exact = exact or value
        yield Cost(precision, model.size, value, value / exact)
