"""What the node's models do for one swarm: the same answers, memory from its own peers.

Knows the ask and memory services and their handlers; must not know who is in the swarm.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from node.services.ask import AskService
from node.services.ask_stream import AskStream
from node.services.memory import NodeMemory
from node.services.memory_fetch import FetchParts, MemoryRecall
from node.services.memory_stream import MemoryStream
from protocols import versions
from protocols.ids import PeerId
from protocols.messages.ask import Ask, ServerMessage


class ModelOffer:
    """Implements `PeerAnswerer`, and `coordinator.ports.Answerer` for the node itself.

    Without `memory` none is passed on.
    """

    def __init__(self, service: AskService, memory: NodeMemory | None, parts: FetchParts) -> None:
        self._service = service
        self._parts = parts
        self._memory = memory
        self._recall = MemoryRecall(memory, parts) if memory is not None else None

    async def serve(self) -> None:
        """Answer what peers ask, and send them memory."""
        transport = self._parts.transport
        await transport.serve(versions.ASK, AskStream(self))
        await transport.serve(versions.MEMORY, MemoryStream(self._memory, self._parts.is_trusted))

    async def answer(
        self, ask: Ask, peer: PeerId | None = None
    ) -> AsyncGenerator[ServerMessage, None]:
        """As `AskService.answer`."""
        async with aclosing(self._service.answer(ask, peer, self._recall)) as messages:
            async for message in messages:
                yield message
