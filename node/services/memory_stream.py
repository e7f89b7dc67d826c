"""`/dslm/memory/1` on a stream: sends the pages that are wanted, to peers that are trusted.

Knows channels and deadlines; what there is to send is `node.services.memory`'s. Whoever is not
trusted, knows no ticket or names what is not here gets the same short answer.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from node.services.ask_stream import Patience
from node.services.memory import TRANSFERS_MAX, NodeMemory
from node.services.memory_notes import Note
from node.services.memory_ports import PageMemory
from protocols import limits
from protocols.channel import Channel
from protocols.errors import DslmError, PeerLost, ProtocolError, TransportDown
from protocols.ids import PeerId
from protocols.memory import ServerMemory, pages_per_frame
from protocols.messages.memory import Done, Found, MemoryRequest, Pages, Want
from protocols.ports import Stream

SEND_SECONDS = 30.0
"""How long, over a whole transfer, we wait for the peer to take what we send."""
READY_MAX = 2
"""Messages that are packed before they can be sent."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Sending:
    """What goes to the peer: the pages before number `stop`."""

    memory: NodeMemory
    note: Note
    model: PageMemory
    stop: int


class MemoryStream:
    """The stream handler of the memory protocol in one swarm."""

    def __init__(self, memory: NodeMemory | None, is_trusted: Callable[[PeerId], bool]) -> None:
        """Without `memory` there is nothing to send."""
        self._memory = memory
        self._is_trusted = is_trusted

    async def __call__(self, stream: Stream) -> None:
        """Serve one stream; all of a client's misbehaviour ends in closing it."""
        channel: Channel[MemoryRequest] = Channel(stream, MemoryRequest)
        try:
            async with asyncio.timeout(limits.FIRST_MESSAGE_SECONDS):
                message = await channel.receive()
            if message is None:
                return
            want = ServerMemory().receive(message)
            await self._serve(channel, want)
        except (TimeoutError, PeerLost, TransportDown):
            stream.abort()
        except ProtocolError as error:
            _log.info("peer %s broke the memory protocol: %s", stream.peer[:12], error)
            stream.abort()

    async def _serve(self, channel: Channel[MemoryRequest], want: Want) -> None:
        patience = Patience(SEND_SECONDS)
        sending = await self._choose(channel.stream.peer, want)
        async with patience.spend():
            await channel.send(Found(sending.stop if sending else 0))
        if sending is not None:
            sending.note.reads_left -= 1
            sending.memory.sending += 1
            try:
                await _send(channel, want, sending, patience)
            finally:
                sending.memory.sending -= 1
        async with patience.spend():
            await channel.send(Done())

    async def _choose(self, peer: PeerId, want: Want) -> _Sending | None:
        memory = self._memory
        if memory is None or not self._is_trusted(peer) or memory.sending >= TRANSFERS_MAX:
            return None
        known = memory.look_up(want)
        if known is None:
            return None
        note, common = known
        model = memory.models[note.specialist]
        try:
            found = (await model.missing(note.pages, common)).start
        except DslmError:  # the engine broke: it has no memory any more
            return None
        return _Sending(memory, note, model, found) if found > want.first else None


async def _send(
    channel: Channel[MemoryRequest], want: Want, sending: _Sending, patience: Patience
) -> None:
    """Some pages are on their way while the next are copied and packed."""
    ready: asyncio.Queue[tuple[Pages, bytes] | None] = asyncio.Queue(READY_MAX)
    try:
        async with asyncio.TaskGroup() as tasks:
            packing = tasks.create_task(_pack(want, sending, ready))
            while (frame := await ready.get()) is not None:
                async with patience.spend():
                    await channel.send(*frame)
                sending.memory.counts.pages_sent += frame[0].count
                sending.memory.counts.bytes_sent += len(frame[1])
            packing.cancel()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _pack(
    want: Want, sending: _Sending, ready: "asyncio.Queue[tuple[Pages, bytes] | None]"
) -> None:
    """From the end to the beginning; early the end if pages are gone. None comes last."""
    most, stop = pages_per_frame(want.layout, want.encoding), sending.stop
    while stop > want.first:
        first = max(want.first, stop - most)
        try:
            data = await sending.model.export(
                sending.note.pages, first, stop - first, want.encoding
            )
        except DslmError:  # the engine broke
            data = b""
        if not data:
            break
        await ready.put((Pages(first, stop - first, want.names[stop - 1]), data))
        stop = first
    await ready.put(None)
