"""How many drafted tokens of which text are worth their rows in one step.

Pure arithmetic over chances and costs; must not know texts or tokens. As in TurboSpec (arXiv
2406.14066) what counts is tokens per second of the whole batch, so that drafts end by themselves
where other requests make better use of the rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_MARGIN = 1.05
"""A plan with drafts must promise so much more than one without: estimates err."""

_LEAST = 0.02
"""No row is worth so small a chance."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A draft of `length` tokens; each is right with `chance` if those before it are."""

    chance: float
    length: int


def spread(
    offers: Sequence[Offer], rows: int, spare: int, seconds: Callable[[int], float]
) -> list[int]:
    """How many tokens of each offer to try, at most `spare` in all.

    The step has `rows` rows without them and yields as many tokens; `seconds` is what it takes by
    rows. Tokens are tried in the order of the chance that they are reached and right.
    """
    likeliest = sorted(_tokens(offers), reverse=True)[:spare]
    best, best_rate = 0, _MARGIN * rows / seconds(rows)
    tokens = float(rows)
    for count, (value, _) in enumerate(likeliest, 1):
        tokens += value
        rate = tokens / seconds(rows + count)
        if rate > best_rate:
            best, best_rate = count, rate
    lengths = [0] * len(offers)
    for _, index in likeliest[:best]:
        lengths[index] += 1
    return lengths


def _tokens(offers: Sequence[Offer]) -> Iterable[tuple[float, int]]:
    """For each token that may be right the chance that it is, and whose it is."""
    for index, offer in enumerate(offers):
        value = 1.0
        for _ in range(offer.length):
            value *= offer.chance
            if value < _LEAST:
                break
            yield value, index
