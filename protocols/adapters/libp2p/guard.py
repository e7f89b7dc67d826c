"""The guard: who calls our part of hivemind's DHT is admitted, and what he sends is harmless.

Knows how the calls travel and in which order they are checked: first the gate, then lengths, then
shapes, then hivemind. It stands between `DHTNode` and `P2P`, in both directions, because hivemind's
DHT alone answers everybody and believes everything. Must not know what records say.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hivemind.p2p import P2PContext, PeerID
from hivemind.p2p.p2p_daemon_bindings.control import ControlClient
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError
from hivemind.proto import dht_pb2

from protocols import admission
from protocols.adapters.libp2p.dht_messages import (
    Entry,
    Message,
    MessageT,
    check_find,
    check_sender,
    clean_find_response,
    clean_node_info,
    clean_store,
    is_entry_sound,
    node_id_of,
    pack_dictionary,
    parse,
    split_store,
    trim_find_response,
    unpack_dictionary,
    weight,
)
from protocols.adapters.libp2p.turnstile import Turnstile
from protocols.defects import describe
from protocols.errors import (
    DeadlineExceeded,
    DslmError,
    NotAdmitted,
    PeerLost,
    ProtocolError,
    TransportDown,
    Unsupported,
)
from protocols.ids import parse_peer_id
from protocols.ports import Clock

__all__ = [
    "Entry",
    "GuardedP2P",
    "check_find",
    "check_sender",
    "clean_find_response",
    "clean_store",
    "is_entry_sound",
    "node_id_of",
    "pack_dictionary",
    "parse",
    "split_store",
    "trim_find_response",
    "unpack_dictionary",
    "weight",
]

CALL_SECONDS = 5.0
"""One call of another peer's part of the record store. Left alone, p2pd waits for 40 s."""
_ERROR_CHARACTERS_MAX = 200
_logger = logging.getLogger(__name__)

Handler = Callable[[Message, P2PContext], Awaitable[Message]]


class GuardedP2P:
    """What `DHTNode` gets instead of hivemind's `P2P`: the same calls, with every message checked.

    It outlives the daemon: handlers are registered again with each daemon that is attached, and
    calls fail at once while there is none.
    """

    def __init__(self, peer_id: PeerID, clock: Clock, turnstile: Turnstile | None = None) -> None:
        self.peer_id = peer_id
        self._clock = clock
        self._turnstile = turnstile or Turnstile(clock)
        self._gate = self._turnstile.gate
        self._control: ControlClient | None = None
        self._handlers: dict[str, tuple[Handler, type[Message]]] = {}

    def __repr__(self) -> str:
        return f"<GuardedP2P {'attached' if self._control else 'detached'}>"

    @property
    def is_attached(self) -> bool:
        """Whether there is a daemon to call through."""
        return self._control is not None

    async def attach(self, control: ControlClient) -> None:
        """Serve and call through this connection to the daemon."""
        for name in self._handlers:
            await self._register(control, name)
        self._control = control

    def detach(self) -> None:
        """The daemon is gone."""
        self._control = None

    async def add_protobuf_handler(
        self, name: str, handler: Handler, input_protobuf_type: type[Message], **options: bool
    ) -> None:
        """Serve a unary call; hivemind's DHT has no other kind."""
        if any(options.values()):
            raise Unsupported("the record store's calls are unary")
        self._handlers[name] = handler, input_protobuf_type
        if (control := self._control) is not None:
            await self._register(control, name)

    async def remove_protobuf_handler(self, name: str, **_options: bool) -> None:
        """Stop serving a call."""
        del self._handlers[name]
        if self._control is not None:
            async with asyncio.timeout(CALL_SECONDS):
                await self._control.remove_unary_handler(name)

    async def call_protobuf_handler(
        self, peer_id: PeerID, name: str, request: Message, output_protobuf_type: type[Message]
    ) -> Message:
        """The checked answer of a peer."""
        if isinstance(request, dht_pb2.StoreRequest):
            stored: Message = await self._call_store(peer_id, name, request)
            return stored
        response: dht_pb2.FindResponse = await self._call(
            peer_id, name, request, output_protobuf_type
        )
        if isinstance(request, dht_pb2.FindRequest):
            clean_find_response(response, peer_id, len(request.keys), self._clock.now())
        else:
            clean_node_info(response, peer_id)
        checked: Message = response
        return checked

    async def _call_store(
        self, peer: PeerID, name: str, request: dht_pb2.StoreRequest
    ) -> dht_pb2.StoreResponse:
        """Store in as many requests as fit the limits; hivemind hands over all it has in one."""
        merged = dht_pb2.StoreResponse()
        for part in split_store(request):
            response = await self._call(peer, name, part, dht_pb2.StoreResponse)
            clean_node_info(response, peer)
            if len(response.store_ok) != len(part.keys):
                raise ProtocolError("a store answer of another length than its request")
            merged.store_ok.extend(response.store_ok)
            merged.peer.CopyFrom(response.peer)
        return merged

    async def _call(
        self, peer: PeerID, name: str, request: Message, kind: type[MessageT]
    ) -> MessageT:
        """The answer of a peer that admits us; one that forgot us is greeted a second time."""
        remote = parse_peer_id(peer.to_base58())
        data = request.SerializeToString()
        await admission.greet(self._gate, remote, name)
        try:
            answer = await self._call_once(peer, name, data)
        except NotAdmitted:
            if self._gate is None:
                raise
            admission.forget(self._gate, remote)
            await admission.greet(self._gate, remote, name)
            answer = await self._call_once(peer, name, data)
        return parse(kind, answer)

    async def _call_once(self, peer: PeerID, name: str, data: bytes) -> bytes:
        if self._control is None:
            raise TransportDown("the network daemon is down")
        try:
            async with asyncio.timeout(CALL_SECONDS):
                answer: bytes = await self._control.call_unary_handler(peer, name, data)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer to {name} within {CALL_SECONDS:.0f} s") from None
        except P2PHandlerError as error:
            raise _refusal(str(error)) from error
        except P2PDaemonError as error:
            reason = str(error)[:_ERROR_CHARACTERS_MAX]
            raise PeerLost(f"no answer from the record store: {reason}") from error
        return answer

    async def _register(self, control: ControlClient, name: str) -> None:
        handler, kind = self._handlers[name]

        async def answer(data: bytes, remote: PeerID) -> bytes:
            try:
                return await self._answer(name, handler, kind, data, remote)
            except DslmError:
                raise  # its text is fit for the peer
            except Exception as error:
                # a task's top; hivemind would send the peer all that the error tells
                _logger.warning("answering %s failed: %s", name, describe(error))
                raise Unsupported("this request cannot be answered") from error

        await control.add_unary_handler(name, answer)

    async def _answer(
        self, name: str, handler: Handler, kind: type[Message], data: bytes, remote: PeerID
    ) -> bytes:
        peer = parse_peer_id(remote.to_base58())
        self._turnstile.enter_request(peer, name)
        try:
            request: dht_pb2.FindRequest = parse(kind, data)  # or one of the other two
            check_sender(request.peer, remote)
            self._turnstile.charge_request(peer, weight(request))
            context = P2PContext(handle_name="", local_id=self.peer_id, remote_id=remote)
            if isinstance(request, dht_pb2.StoreRequest):
                response = await self._answer_store(handler, request, context)
            elif isinstance(request, dht_pb2.FindRequest):
                check_find(request)
                response = trim_find_response(await handler(request, context))
            else:
                response = await handler(request, context)
            encoded: bytes = response.SerializeToString()
            return encoded
        finally:
            self._turnstile.leave_request()

    async def _answer_store(
        self, handler: Handler, request: dht_pb2.StoreRequest, context: P2PContext
    ) -> dht_pb2.StoreResponse:
        cleaned, kept = clean_store(request, self._clock.now())
        response: dht_pb2.StoreResponse = await handler(cleaned, context)
        outcomes = iter(tuple(response.store_ok))
        merged = [stayed and next(outcomes) for stayed in kept]
        del response.store_ok[:]
        response.store_ok.extend(merged)
        return response


def _refusal(text: str) -> DslmError:
    """What a peer's handler raised, of which hivemind sends the `repr`."""
    if text.startswith(f"{NotAdmitted.__name__}("):
        return NotAdmitted("the peer does not admit us to its record store")
    return PeerLost(f"no answer from the record store: {text[:_ERROR_CHARACTERS_MAX]}")
