"""What a fuzz target is: a function that takes any bytes and may fail in the allowed ways only.

Knows the shape of a target; the parsers stand in the modules `*_targets.py`.
"""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from protocols import sealing
from protocols.signing import Identity

INPUT_SECONDS_MAX = 0.05
"""What any input may cost in processor time."""
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
    seconds_max: float = INPUT_SECONDS_MAX
    """More than the default only for files that the node's own user chose."""
    takes_bombs: bool = True
    """No for a parser of such files that is known to be quadratic (`tomllib`)."""


@contextmanager
def signatures_believed() -> Iterator[None]:
    """Take every signature for a good one: what a signed document can say is worth more inputs than
    a signature can be checked in the time.
    """
    real = vars(sealing)["verify"]
    vars(sealing)["verify"] = _believe
    try:
        yield
    finally:
        vars(sealing)["verify"] = real


def _believe(_peer: str, _kind: str, _data: bytes, _signature: bytes) -> None:
    return


def envelope(kind: str, body: bytes, signer: Identity = ALICE) -> bytes:
    """A sealed statement with a signature that is none."""
    return msgspec.msgpack.encode(sealing.Sealed(signer.peer_id, kind, body, bytes(64)))


def words_of(messages: tuple[msgspec.Struct, ...]) -> tuple[bytes, ...]:
    """The field names and tags of messages, as msgpack."""
    names: set[str] = set()
    for message in messages:
        names |= {"type", *(name for name in message.__struct_fields__)}
        tag = message.__struct_config__.tag
        names |= {tag} if isinstance(tag, str) else set()
    return tuple(msgspec.msgpack.encode(name) for name in sorted(names))


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
