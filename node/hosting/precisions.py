"""What each precision costs a model: its bytes, and how well it still predicts a text.

Knows loading and perplexity; must not know where the text is from.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.engine.perplexity import perplexity
from node.engine.weights.scheme import Precision
from node.hosting.kernels import KernelSettings, build_model, choose_kernels
from node.hosting.read import read_model
from protocols.errors import UserError

_log = logging.getLogger(__name__)

WINDOW = 512
"""Tokens that a prediction can look back on; see `node.engine.perplexity`."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One precision: bytes of weights, perplexity, and who computed it, for people.

    `ratio` is to the perplexity in fp32.
    """

    precision: Precision
    weights: int
    perplexity: float
    ratio: float
    computed_by: str = ""


def measure_precisions(
    path: Path,
    text: str,
    tokens: int,
    precisions: Sequence[Precision],
    kernels: KernelSettings | None = None,
) -> Iterator[Cost]:
    """The cost of each of `precisions` over the first `tokens` tokens of `text`; fp32 is first.

    fp32 is always measured: it is what the others are compared with. With `kernels` the others are
    computed as a node with these settings computes them, else by torch. `UserError` for a text of
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
        settings = KernelSettings("eager")
        if kernels is not None and precision != "fp32":
            settings = kernels
        chosen = choose_kernels(settings, weights.config, precision, _log.info)
        model, computed_by = build_model(weights, chosen, precision, window)
        value = perplexity(model, ids, window)
        exact = exact or value
        yield Cost(precision, model.size, value, value / exact, computed_by)
