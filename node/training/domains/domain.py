"""One subject's examples: to learn from, to choose settings by, and to measure with.

Knows examples; must not know which set they come from.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from node.training.examples import Example

Vary = Callable[[Example, np.random.Generator], Example]
Make = Callable[[int, np.random.Generator], list[Example]]


def unchanged(example: Example, _rng: np.random.Generator) -> Example:
    """A `Vary` that does nothing."""
    return example


@dataclass(frozen=True, slots=True)
class Domain:
    """`train`, `validation` and `test` share no prompt. `vary` makes another example of one of
    `train` (the same task in other words or numbers), for each epoch anew.

    `make`, where there is one, makes all examples of an epoch anew, as many as `train` has, from
    its number, counted from 0, and a generator.

    Where answers are chosen among `candidates` (Yes and No), accuracy is measured too.
    """

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    vary: Vary = unchanged
    candidates: tuple[str, ...] = ()
    make: Make | None = None

    def epoch(self, number: int, seed: int = 0) -> list[Example]:
        """The examples of epoch `number`, as many in each; varied, they keep the order of `train`.

        Trainings with other seeds see other variations.
        """
        rng = np.random.default_rng([seed, number])
        if self.make is not None:
            return self.make(number, rng)
        return [self.vary(example, rng) for example in self.train]
