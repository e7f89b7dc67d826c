"""Programs of the engine's benchmark that run beside each other: one for each way of answering.

Knows how orders and results go between the benchmark and such a program, one JSON text a line;
must not know torch. A process each, because the number of threads is one setting of a process.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import msgspec
from msgspec import Struct

END_SECONDS = 20.0


class Decode(Struct, tag=True, frozen=True):
    """Read a prompt of `context` tokens, then make `tokens` more, one at a time, greedily."""

    context: int
    tokens: int


class Prefill(Struct, tag=True, frozen=True):
    """Read a prompt of `tokens` tokens, up to and with the choice of the token that follows."""

    tokens: int


class Mixed(Struct, tag=True, frozen=True):
    """Answer requests of these (prompt, answer) lengths, together or one after the other."""

    lengths: tuple[tuple[int, int], ...]
    is_together: bool


class SharedPrefix(Struct, tag=True, frozen=True):
    """Time to the first token of two requests that begin with the same `shared` tokens."""

    shared: int
    own: int


class Through(Struct, tag=True, frozen=True):
    """As `Decode`, but through the thread and the event loop by which a node reaches the engine."""

    context: int
    tokens: int


class Overhead(Struct, tag=True, frozen=True):
    """Where the time of a decode step goes."""

    context: int
    tokens: int


class Forced(Struct, tag=True, frozen=True):
    """How likely the engine, one token at a time, finds each token of a text but the first."""

    text: str
    tokens: int
    window: int


class Continue(Struct, tag=True, frozen=True):
    """Answer a conversation of one turn with `tokens` tokens; 0 of `temperature` is greedy."""

    text: str
    tokens: int
    temperature: float
    seed: int


class Adapted(Struct, tag=True, frozen=True):
    """Decode `requests` requests at once, spread over `adapters` adapters; none if that is 0.

    Those of rank `rank` change every matrix; with `is_a_shared` all have one frozen A.
    """

    adapters: int
    requests: int
    rank: int
    is_a_shared: bool
    context: int
    tokens: int


Order = Decode | Prefill | Mixed | SharedPrefix | Through | Overhead | Forced | Continue | Adapted


class Ready(Struct, frozen=True):
    """The program has loaded its model: bytes that are resident because of it, and what it is.

    `beside` are those of them that are no weights: the tokenizer and the headers.
    """

    resident: int
    version: str
    beside: int = 0


class Result(Struct, frozen=True):
    """What an order came to; a field that does not belong to the order is empty.

    `tokens` were made (or read, for a prefill) in `seconds`. `first_seconds` are times to first
    tokens. `native_seconds` were spent in native calls, of `seconds` in all.
    """

    seconds: float
    tokens: int
    first_seconds: tuple[float, ...] = ()
    native_seconds: float = 0.0
    perplexity: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


class Child:
    """One such program; `ready` is what it said first."""

    def __init__(self, process: "Popen[bytes]") -> None:
        self._process = process
        self.ready = msgspec.json.decode(self._read(), type=Ready)

    def ask(self, order: Order) -> Result:
        """Have an order carried out; `RuntimeError` if the program died of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._read(), type=Result)

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return line


@contextmanager
def child(
    program: str, *arguments: str, defaults: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """Run a program of this folder while the block runs; it ends with its standard input.

    `defaults` are added to the environment where it does not have them.
    """
    here = Path(__file__).resolve()
    command = [sys.executable, str(here.with_name(program)), *arguments]
    surroundings = {**(defaults or {}), **os.environ}  # noqa: TID251 - passed on, not read
    surroundings["PYTHONPATH"] = str(here.parents[1])
    with Popen(command, stdin=PIPE, stdout=PIPE, env=surroundings) as process:  # noqa: S603
        try:
            yield Child(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(END_SECONDS)


def serve(ready: Ready, carry_out: Callable[[Order], Result]) -> None:
    """The program's side: orders from stdin until it ends, results to the stdout of the start.

    Whatever else prints goes to stderr.
    """
    with os.fdopen(os.dup(1), "wb") as output:
        os.dup2(2, 1)
        output.write(msgspec.json.encode(ready) + b"\n")
        output.flush()
        for line in sys.stdin.buffer:
            order = msgspec.json.decode(line, type=Order)
            output.write(msgspec.json.encode(carry_out(order)) + b"\n")
            output.flush()
