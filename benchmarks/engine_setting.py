"""What all rows of the engine's benchmark share: the model, how often, and who answers.

Knows how the programs beside the benchmark are started; must not know what a row measures.
"""

import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine_child import Child, Decode, Prefill, child
from engine_llama_cpp import HOW, program
from report import Row
from samples import median_ratio, spread

ROUNDS = 5
NO_LLAMA_CPP = f"no llama.cpp: {HOW}"
Precision = Literal["bf16", "int4"]
PRECISIONS: tuple[Precision, ...] = ("int4", "bf16")


class Missing(Exception):
    """Why a row cannot be measured here."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The model file, and how much is measured: `is_quick` shows that it runs, no more.

    `about` is told who took part, and with which settings.
    """

    model: Path
    is_quick: bool
    about: list[str] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """How often each way is measured."""
        return 1 if self.is_quick else ROUNDS

    def tokens(self, wanted: int) -> int:
        """How long an answer is."""
        return max(4, wanted // 8) if self.is_quick else wanted

    @contextmanager
    def ours(
        self, precision: Precision, threads: int = 0, speculation: str = "off"
    ) -> Iterator[Child]:
        """Our engine, warm. Waiting threads sleep, as in a node."""
        arguments = (str(self.model), precision, str(threads or cores()), speculation)
        defaults = {"OMP_WAIT_POLICY": "PASSIVE"}
        with child("engine_ours.py", *arguments, defaults=defaults) as found:
            yield self._warm(found)

    @contextmanager
    def transformers(self, threads: int = 0) -> Iterator[Child]:
        """transformers in bf16, warm. Waiting threads spin: it is up to twice as fast so."""
        arguments = (str(self.model), str(threads or cores()))
        with child("engine_transformers.py", *arguments) as found:
            yield self._warm(found)

    def tell(self, text: str) -> None:
        """Have it stand in the report, once."""
        if text not in self.about:
            self.about.append(text)

    def _warm(self, found: Child) -> Child:
        """The same, after it has done a little of everything."""
        self.tell(found.ready.version)
        found.ask(Decode(16, 16))
        found.ask(Prefill(128))
        return found


def cores() -> int:
    """How many threads there are for us."""
    return len(os.sched_getaffinity(0))


def require_llama_cpp() -> None:
    """`Missing` with how to get it."""
    if not program().exists():
        raise Missing(NO_LLAMA_CPP)


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio should come to: at least so much, or at most."""

    bound: float
    is_most: bool = False

    def met(self, ratio: float) -> bool:
        """Whether it does."""
        return ratio <= self.bound if self.is_most else ratio >= self.bound

    def __str__(self) -> str:
        return f"{'at most' if self.is_most else 'at least'} {self.bound:g}x"


@dataclass(frozen=True, slots=True)
class Compared:
    """Two ways measured in turn: figures of each round."""

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratio(self) -> float:
        """As `median_ratio`."""
        return median_ratio(self.ours, self.theirs)

    def rows(self, name: str, baseline: str, unit: str, target: Target) -> list[Row]:
        """The baseline's median, then ours with the ratio and how far each went up and down."""
        return [
            Row(f"{name}: {baseline}", statistics.median(self.theirs), unit),
            Row(
                name,
                statistics.median(self.ours),
                unit,
                baseline,
                self.ratio,
                str(target),
                target.met(self.ratio),
                f"spread {spread(self.ours):.0%}, {baseline} {spread(self.theirs):.0%}",
            ),
        ]
