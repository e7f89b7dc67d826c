"""What a fuzz target is: a function that takes any bytes and may fail in the allowed ways only.

Knows the shape of a target; the parsers stand in the modules `*_targets.py`.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from protocols.signing import Identity

NOW = 1_800_000_000.0
ALICE = Identity(bytes(32))
BOB = Identity(b"\1" * 32)


@dataclass(frozen=True, slots=True)
class Target:
    """`run` returns, or raises one of `allowed`; anything else is a finding.

    `seeds` are inputs that it takes; `style` is the encoding that the mutator works in, `words`
    are pieces of that encoding worth trying.
    """

    run: Callable[[bytes], object]
    allowed: tuple[type[BaseException], ...]
    seeds: tuple[bytes, ...]
    style: str
    words: tuple[bytes, ...] = field(default=())
    bytes_max: int = 8_192


class Maker(Protocol):
    """Imports what a target needs and makes it; `folder` is empty and its own."""

    def __call__(self, folder: Path) -> Target:
        """The target."""
        ...


class Suspended(AssertionError):
    """A coroutine waits although all its input is there."""


def run_to_end(coroutine: Coroutine[Any, Any, object]) -> object:
    """What a coroutine returns that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise Suspended("it waits for more than it was given")
