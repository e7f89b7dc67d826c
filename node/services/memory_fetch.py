"""Fetching a prompt's pages from the peer that read it in an earlier step, while we compute them.

Knows the memory protocol and predictions; must not know engines. The request goes on meanwhile and
computes from the beginning; pages come from the end. Where the two meet the fetching ends, so
whatever goes wrong here costs the request nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from node.services.memory import NodeMemory
from node.services.memory_ports import PageMemory, PromptPages
from protocols import limits, versions
from protocols.channel import Channel
from protocols.errors import DslmError, PeerLost, ProtocolError
from protocols.ids import PeerId, SpecialistId, parse_peer_id
from protocols.memory import ClientMemory, page_bytes, page_names
from protocols.messages.ask import Ask
from protocols.messages.memory import Encoding, Found, MemoryReply, Pages, Want
from protocols.ports import Stream, Transport

FETCH_SECONDS = 60.0
"""For a whole transfer."""
SILENCE_SECONDS = 5.0
"""How long a peer may send nothing."""
WAITING_MAX = 12
"""Frames that may wait for the engine before no more are read."""
PAGES_MIN = 4
"""Fewer are computed."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FetchParts:
    """What a swarm gives: a transport, whom to trust, where peers are, and who runs transfers."""

    transport: Transport
    is_trusted: Callable[[PeerId], bool]
    addresses: Callable[[PeerId], Sequence[str]]
    tasks: asyncio.TaskGroup


class MemoryRecall:
    """Implements `Recall` in one swarm."""

    def __init__(self, memory: NodeMemory, parts: FetchParts) -> None:
        self._memory = memory
        self._parts = parts
        self._running: set[tuple[str, PeerId]] = set()
        """Tickets, and from whom pages are being fetched for them."""

    def begin(self, ask: Ask, prompt: tuple[int, ...], client: PeerId | None) -> "Fetching":
        """See `Recall`. Only what has a ticket is noted or fetched.

        Requests of one task that overlap, as when one makes ready what the next asks, need one
        transfer: what it brings is found by both.
        """
        fetching = Fetching()
        specialist = SpecialistId(ask.specialist)
        model = self._memory.models.get(specialist)
        if model is None or not ask.memory_ticket:
            return fetching
        pages = PromptPages(prompt, client or "", ask.tenant, ask.memory_ticket)
        self._memory.notes.add(specialist, pages, self._memory.clock.monotonic())
        source = self._source(ask.memory_at)
        if source is not None and (ask.memory_ticket, source) not in self._running:
            key = ask.memory_ticket, source
            self._running.add(key)
            transfer = Transfer(self._memory, self._parts, model, pages, source)
            task = fetching.run(self._parts.tasks, transfer)
            task.add_done_callback(lambda _: self._running.discard(key))
        return fetching

    def _source(self, named: str) -> PeerId | None:
        """Whom to fetch from, if anybody."""
        with suppress(ProtocolError):
            peer = parse_peer_id(named)
            now = self._memory.clock.monotonic()
            is_other = peer != self._parts.transport.peer_id
            if (
                is_other
                and self._parts.is_trusted(peer)
                and not self._memory.links.is_faulty(peer, now)
            ):
                return peer
        return None


class Fetching:
    """Implements `Recalled`."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._transfer: Transfer | None = None

    @property
    def pages(self) -> int:
        """See `Recalled`."""
        return self._transfer.pages_kept if self._transfer else 0

    @property
    def size(self) -> int:
        """See `Recalled`."""
        return self._transfer.bytes_received if self._transfer else 0

    def run(self, tasks: asyncio.TaskGroup, transfer: "Transfer") -> "asyncio.Task[None]":
        """Begin `transfer`, in the task that is returned."""
        self._transfer = transfer
        self._task = tasks.create_task(transfer.run())
        return self._task

    def stop(self) -> None:
        """See `Recalled`."""
        if self._task is not None:
            self._task.cancel()

    async def wait(self) -> None:
        """Until the transfer ended, however it did."""
        if self._task is not None:
            await asyncio.wait([self._task])


class Transfer:
    """One, from the question whether to fetch at all to the last page of use."""

    def __init__(
        self,
        memory: NodeMemory,
        parts: FetchParts,
        model: PageMemory,
        pages: PromptPages,
        source: PeerId,
    ) -> None:
        self._memory = memory
        self._parts = parts
        self._model = model
        self._pages = pages
        self._source = source
        self._latency = 0.0
        self._reader: asyncio.Task[None] | None = None
        self.pages_kept = 0
        self.bytes_received = 0

    async def run(self) -> None:
        """Never fails: what does not come is computed."""
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                want = await self._plan()
                if want is not None:
                    await self._fetch(want)
        except ProtocolError as error:
            self._memory.links.failed(self._source, self._memory.clock.monotonic())
            self._give_up(error)
        except (DslmError, TimeoutError) as error:
            self._give_up(error)
        # The top of a task: a defect must not end the swarm's other tasks.
        except Exception:  # noqa: BLE001
            _log.exception("fetching memory failed")
        finally:
            self._memory.counts.pages_fetched += self.pages_kept
            self._memory.counts.bytes_fetched += self.bytes_received

    def _give_up(self, error: Exception) -> None:
        self._memory.counts.transfers_failed += 1
        _log.info("no more memory from %s: %s", self._source[:12], str(error) or "too slow")

    async def _plan(self) -> Want | None:
        """What to ask for; None if computing is as quick."""
        layout, settings = self._model.layout, self._memory.settings
        prompt = tuple(self._pages.tokens)
        base = min(self._model.base_tokens(prompt), len(prompt) - 1) - settings.window
        wanted = min(max(0, base) // layout.page_tokens, limits.MEMORY_PAGES_MAX)
        if wanted < PAGES_MIN:
            return None
        missing = await self._model.missing(self._pages, wanted)
        if len(missing) < PAGES_MIN:
            return None
        journey = self._memory.links.predict(
            self._source,
            len(missing) * layout.page_tokens,
            page_bytes(layout, settings.encoding) / layout.page_tokens,
            self._model.prompt_rate,
            self._memory.clock.monotonic(),
        )
        if not journey.is_worth_it:
            return None
        names = page_names(layout, self._pages.chain, prompt, missing.stop)
        return Want(self._pages.chain, layout, settings.encoding, names, missing.start)

    async def _fetch(self, want: Want) -> None:
        stream = await self._open()
        try:
            channel: Channel[MemoryReply] = Channel(
                stream, MemoryReply, payload_max=limits.PAYLOAD_BYTES_MAX
            )
            await channel.send(want)
            await self._receive(channel, want)
        finally:
            stream.abort()

    async def _open(self) -> Stream:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await self._parts.transport.open_stream(
                self._source, versions.MEMORY, self._parts.addresses(self._source)
            )

    async def _receive(self, channel: Channel[MemoryReply], want: Want) -> None:
        """Read on while earlier pages wait for the engine's present step to end."""
        clock = self._memory.clock
        asked = clock.monotonic()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._reader = tasks.create_task(self._read(channel, want, tasks))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            if self.bytes_received:
                now = clock.monotonic()
                seconds = now - asked - self._latency
                self._memory.links.measured(
                    self._source, self.bytes_received, seconds, self._latency, now
                )

    async def _read(
        self, channel: Channel[MemoryReply], want: Want, tasks: asyncio.TaskGroup
    ) -> None:
        conversation, asked = ClientMemory(want), self._memory.clock.monotonic()
        room = asyncio.Semaphore(WAITING_MAX)
        while not conversation.ended:
            async with asyncio.timeout(SILENCE_SECONDS):
                frame = await channel.receive_frame()
            if frame is None:
                raise PeerLost(f"{self._source} ended the stream among pages")
            message = conversation.receive(frame).message
            if isinstance(message, Found):
                self._latency = self._memory.clock.monotonic() - asked
            elif isinstance(message, Pages):
                self.bytes_received += len(frame.payload)
                await room.acquire()
                tasks.create_task(self._take(message, frame.payload, want.encoding, room))

    async def _take(
        self, pages: Pages, data: bytes, encoding: Encoding, room: asyncio.Semaphore
    ) -> None:
        try:
            fresh = await self._model.take(self._pages, pages.first, data, encoding)
        finally:
            room.release()
        self.pages_kept += fresh
        if fresh < pages.count and self._reader is not None:
            self._reader.cancel()  # what comes before is computed already
