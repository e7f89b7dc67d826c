"""Several answers to one request (`n` above 1), told as the choices of one.

Knows how choices share an id, a stream and a count of tokens; must not know any endpoint's fields
besides those that both have.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TypeVar

import msgspec
from msgspec import Struct

from node.gateway.outlet import Shape
from node.gateway.requests import Wanted
from node.gateway.sse import DONE, EventStream
from node.gateway.tally import Piece, Tally, Usage
from protocols.ids import RequestId

SEED_STEP = 0x9E3779B97F4A7C15
"""Between the seeds of two choices: odd, so that no two of 2**63 are the same."""
_SEED_MASK = 2**63 - 1
StructT = TypeVar("StructT", bound=Struct)


def choices_of(wanted: Wanted) -> list[Wanted]:
    """One request for each choice. The first is what it would be alone; the others have seeds and
    request ids of their own.
    """
    ask = wanted.ask
    found = [wanted]
    for index in range(1, wanted.choices):
        sampling = msgspec.structs.replace(
            ask.sampling, seed=(ask.sampling.seed + index * SEED_STEP) & _SEED_MASK
        )
        request_id = RequestId(f"{ask.request_id}-{index}")
        one = replace(ask, request_id=request_id, sampling=sampling)
        found.append(replace(wanted, ask=one))
    return found


class Choices:
    """The answers to `wanted`, each counted and spelled on its own, as choices of one answer."""

    def __init__(self, wanted: Wanted, make_shape: Callable[[Wanted], Shape]) -> None:
        self._include_usage = wanted.include_usage
        self.asks = choices_of(wanted)
        self.tallies = [Tally(one) for one in self.asks]
        self.shapes = [
            _OneShape(self, index, make_shape(one)) for index, one in enumerate(self.asks)
        ]

    @property
    def are_complete(self) -> bool:
        """Whether all answers have ended."""
        return all(tally.is_complete for tally in self.tallies)

    def whole(self) -> Struct:
        """The body of all answers, which are complete."""
        bodies = [
            shape.whole(tally) for shape, tally in zip(self.shapes, self.tallies, strict=True)
        ]
        reports = tuple(tally.report() for tally in self.tallies)
        return _changed(
            bodies[0],
            choices=tuple(choice for body in bodies for choice in _choices(body)),
            usage=self.usage(),
            dslm=_changed(reports[0], choices=reports),
        )

    def usage(self) -> Usage:
        """The prompt once, and the tokens of all answers."""
        each = [tally.usage() for tally in self.tallies]
        prompt, answers = each[0].prompt_tokens, sum(one.completion_tokens for one in each)
        return Usage(prompt, answers, prompt + answers)

    def told_usage(self, chunks: tuple[Struct, ...]) -> tuple[Struct, ...]:
        """The last chunks of a choice: what was used is told once, after the last choice."""
        if not self._include_usage:
            return chunks
        *before, last = chunks
        return (*before, _changed(last, usage=self.usage())) if self.are_complete else (*before,)


class _OneShape:
    """Implements `Shape` for one choice: `inner`'s, with its index and the id of the first."""

    def __init__(self, choices: Choices, index: int, inner: Shape) -> None:
        self._choices = choices
        self._index = index
        self._inner = inner
        self._suffix = f"-{index}" if index else ""

    def whole(self, tally: Tally) -> Struct:
        return self._spelled(self._inner.whole(tally))

    def opening(self, tally: Tally) -> tuple[Struct, ...]:
        return tuple(map(self._spelled, self._inner.opening(tally)))

    def pieces(self, tally: Tally, piece: Piece) -> tuple[Struct, ...]:
        return tuple(map(self._spelled, self._inner.pieces(tally, piece)))

    def closing(self, tally: Tally) -> tuple[Struct, ...]:
        return tuple(map(self._spelled, self._choices.told_usage(self._inner.closing(tally))))

    def _spelled(self, part: Struct) -> Struct:
        name = str(msgspec.structs.asdict(part)["id"])
        choices = tuple(_changed(one, index=self._index) for one in _choices(part))
        return _changed(part, id=name.removesuffix(self._suffix), choices=choices)


class ChoiceStream:
    """Implements `FrameSink` for one choice: its frames go into everybody's stream, whole."""

    def __init__(self, stream: EventStream, turn: asyncio.Lock, choices: Choices) -> None:
        self._stream = stream
        self._turn = turn
        self._choices = choices

    @property
    def is_started(self) -> bool:
        """As `EventStream.is_started`."""
        return self._stream.is_started

    async def start(self, headers: dict[str, str]) -> None:
        """As `EventStream.start`; the choice that comes first says who answers."""
        async with self._turn:
            await self._stream.start(headers)

    async def note(self, value: object) -> None:
        """As `EventStream.note`."""
        async with self._turn:
            await self._stream.note(value)

    async def write(self, *frames: bytes) -> None:
        """As `EventStream.write`; the end of a choice is not the end of all."""
        kept = [frame for frame in frames if frame != DONE or self._choices.are_complete]
        async with self._turn:
            await self._stream.write(*kept)


async def at_once(answers: Sequence[Coroutine[None, None, None]]) -> None:
    """Run all; when one fails the others end, and its error comes out as it was."""
    try:
        async with asyncio.TaskGroup() as group:
            for answer in answers:
                group.create_task(answer)
    except BaseExceptionGroup as errors:
        error = errors.exceptions[0]
        raise error from error.__cause__


def _choices(part: Struct) -> tuple[Struct, ...]:
    found: tuple[Struct, ...] = msgspec.structs.asdict(part)["choices"]
    return found


def _changed(part: StructT, **changes: object) -> StructT:
    return msgspec.structs.replace(part, **changes)
