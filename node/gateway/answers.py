"""Carries an answer from the coordinator's events to the client, whole or as a stream.

Knows when a status goes out, keep-alives, and what happens when the client or the answer ends
early; must not know how an endpoint spells its chunks (a `Shape` does).
"""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from coordinator.answer import Completed, Delta
from node.gateway import sse, wire
from node.gateway.config import GatewayConfig
from node.gateway.errors import Failure, SourceFailed, failure_of, unexpected_failure
from node.gateway.feed import Feed, open_feed
from node.gateway.outlet import Outlet, Shape
from node.gateway.ports import AnswerSource
from node.gateway.requests import Wanted
from node.gateway.running import Running
from node.gateway.several import Choices, ChoiceStream, at_once
from node.gateway.tally import Tally
from protocols.defects import describe
from protocols.errors import DslmError
from protocols.ports import Clock

_log = logging.getLogger(__name__)

LAST_WORD_SECONDS = 5.0
"""How long a client that reads nothing is waited for when its answer has failed."""

ShapeMaker = Callable[[Wanted, int], Shape]
"""Makes the shape of one answer, given when it was created (Unix seconds)."""


class AnswerSender:
    """Answers requests from `source`; one for all endpoints."""

    def __init__(
        self, source: AnswerSource, config: GatewayConfig, clock: Clock, running: Running
    ) -> None:
        self._source = source
        self._config = config
        self._clock = clock
        self._running = running

    async def send(
        self, request: web.Request, wanted: Wanted, make_shape: ShapeMaker
    ) -> web.StreamResponse:
        """The response, sent to its end if it is a stream.

        When the client goes away, the handler is cancelled and with it the answer's generator.
        """
        created = int(self._clock.now())
        if wanted.choices > 1:
            several = Choices(wanted, lambda one: make_shape(one, created))
        else:
            several = None
        if not wanted.stream and several is not None:
            return await self._whole_choices(several)
        if not wanted.stream:
            return await self._whole(wanted, make_shape(wanted, created))
        stream = sse.EventStream(request)
        try:
            if several is not None:
                await self._stream_choices(stream, several)
            else:
                outlet = Outlet(stream, make_shape(wanted, created), Tally(wanted))
                await self._stream_one(wanted, outlet)
        except DslmError as error:
            if not stream.is_started:
                raise
            await self._fail_late(request, stream, error)
        return stream.response

    async def _whole(self, wanted: Wanted, shape: Shape) -> web.Response:
        tally = Tally(wanted)
        await self._count(wanted, tally)
        return wire.json_response(shape.whole(tally), tally.headers())

    async def _whole_choices(self, choices: Choices) -> web.Response:
        pairs = zip(choices.asks, choices.tallies, strict=True)
        await at_once([self._count(one, tally) for one, tally in pairs])
        return wire.json_response(choices.whole(), choices.tallies[0].headers())

    async def _stream_choices(self, stream: sse.EventStream, choices: Choices) -> None:
        turn = asyncio.Lock()
        each = zip(choices.asks, choices.shapes, choices.tallies, strict=True)
        await at_once(
            [
                self._stream_one(one, Outlet(ChoiceStream(stream, turn, choices), shape, tally))
                for one, shape, tally in each
            ]
        )

    async def _count(self, wanted: Wanted, tally: Tally) -> None:
        async with (
            self._running.one(wanted.ask.budget),
            open_feed(self._source.answer(wanted.ask)) as feed,
        ):
            while not tally.is_complete:
                if (event := await feed.next_event(self._config.heartbeat)) is not None:
                    tally.add(event)

    async def _stream_one(self, wanted: Wanted, outlet: Outlet) -> None:
        async with (
            self._running.one(wanted.ask.budget),
            open_feed(self._source.answer(wanted.ask)) as feed,
        ):
            await self._stream(outlet, feed)

    async def _stream(self, outlet: Outlet, feed: Feed) -> None:
        hold_until = self._clock.monotonic() + self._config.hold
        while not outlet.is_complete:
            patience = self._config.heartbeat
            if not outlet.is_started:
                patience = hold_until - self._clock.monotonic()
            if patience <= 0:
                await outlet.start()
                continue
            match await feed.next_event(patience):
                case None if outlet.is_started:
                    await outlet.ping()
                case None:
                    pass
                case Delta() | Completed() as event:
                    await outlet.tell(event)
                case event:
                    await outlet.note(event)

    async def _fail_late(
        self, request: web.Request, stream: sse.EventStream, error: DslmError
    ) -> None:
        """Tell of an error after the status is out; a client that reads nothing is cut off."""
        failure = _late_failure(request, error)
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await stream.write(sse.data_frame(failure.body), sse.DONE)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()


def _late_failure(request: web.Request, error: DslmError) -> Failure:
    if not isinstance(error, SourceFailed):
        return failure_of(error, wire.prompt_parameter(request))
    _log.error(
        "request %s failed: %s", request[wire.REQUEST_ID], describe(error.__cause__ or error)
    )
    return unexpected_failure(request[wire.REQUEST_ID])
