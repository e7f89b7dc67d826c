"""How many drafted tokens of which text are worth their rows in one step.

Pure arithmetic over chances and costs; must not know texts or tokens. As in TurboSpec (arXiv
2406.14066) what counts is tokens per second of the whole batch, so that drafts end by themselves
where other requests make better use of the rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MARGIN = 1.05
"""A plan with drafts must promise so much more than one without: estimates err."""


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
    likeliest = sorted(
        ((offer.chance**depth, index) for index, offer in enumerate(offers)
         for depth in range(1, offer.length + 1)),
        key=lambda one: -one[0],
    )[:spare]  # fmt: skip
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
