"""Requests to p2pd over connections of their own, closed whatever comes.

Knows p2pd's control messages (a varint length, then protobuf); must not know what a stream is for.
hivemind has the same calls, but leaves its connection to the garbage collector when p2pd says no
or when the caller gives up.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from hivemind.p2p import PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import ControlFailure
from hivemind.proto import p2pd_pb2
from hivemind.utils.multiaddr import Multiaddr
from hivemind.utils.multiaddr.exceptions import Error as MultiaddrError

from protocols import limits
from protocols.adapters.libp2p.address import to_wire
from protocols.adapters.libp2p.pipe import Pipe, connect

MESSAGE_BYTES_MAX = 1 << 20
ANSWER_SECONDS = 1.0
_VARINT_BYTES_MAX = 5


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What p2pd says of a stream: who is at the other end, by handshake, and what it speaks."""

    peer: PeerID
    protocol: str


async def dial(socket: Path, peer: PeerID, where: Sequence[Multiaddr]) -> None:
    """Have p2pd connect to `peer`; `ControlFailure` with its reason if it cannot."""
    request = p2pd_pb2.ConnectRequest(
        peer=peer.to_bytes(), addrs=[to_wire(address) for address in where]
    )
    await _ask(socket, p2pd_pb2.Request(type=p2pd_pb2.Request.CONNECT, connect=request))


async def disconnect(socket: Path, peer: PeerID) -> None:
    """Have p2pd close its connections to `peer`; harmless when there is none."""
    kind = p2pd_pb2.Request.DISCONNECT
    request = p2pd_pb2.DisconnectRequest(peer=peer.to_bytes())
    await _ask(socket, p2pd_pb2.Request(type=kind, disconnect=request))


async def list_peers(socket: Path) -> list[tuple[PeerID, tuple[str, ...]]]:
    """For each connection who is at its other end and at which address, as p2pd sees it."""
    pipe = await connect(str(socket))
    try:
        response = await _exchange(pipe, p2pd_pb2.Request(type=p2pd_pb2.Request.LIST_PEERS))
    finally:
        pipe.abort()
    return [(PeerID(info.id), tuple(_texts(info.addrs))) for info in response.peers]


async def find_peer(socket: Path, peer: bytes) -> tuple[bytes, ...]:
    """The addresses, in binary, that p2pd knows of a peer; it looks around if not connected."""
    kind = p2pd_pb2.DHTRequest.FIND_PEER
    query = p2pd_pb2.DHTRequest(type=kind, peer=peer, timeout=1)
    pipe = await connect(str(socket))
    try:
        response = await _exchange(pipe, p2pd_pb2.Request(type=p2pd_pb2.Request.DHT, dht=query))
    finally:
        pipe.abort()
    return tuple(response.dht.peer.addrs)


async def handle_streams(socket: Path, listener: Path, protocol: str) -> None:
    """Have p2pd bring inbound streams of `protocol` to the socket `listener`."""
    request = p2pd_pb2.StreamHandlerRequest(
        addr=Multiaddr(f"/unix{listener}").to_bytes(), proto=[protocol], balanced=False
    )
    kind = p2pd_pb2.Request.STREAM_HANDLER
    await _ask(socket, p2pd_pb2.Request(type=kind, streamHandler=request))


async def identify(socket: Path) -> tuple[str, ...]:
    """The multiaddresses at which p2pd says that it can be dialled, without the peer at the end."""
    pipe = await connect(str(socket))
    try:
        response = await _exchange(pipe, p2pd_pb2.Request(type=p2pd_pb2.Request.IDENTIFY))
    finally:
        pipe.abort()
    return tuple(_texts(response.identify.addrs))


async def is_answering(socket: Path) -> bool:
    """Whether p2pd answers a request within a second."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await _ask(socket, p2pd_pb2.Request(type=p2pd_pb2.Request.IDENTIFY))
    except (OSError, EOFError, ControlFailure, TimeoutError):
        return False
    return True


async def open_stream(socket: Path, peer: PeerID, protocol: str) -> tuple[StreamHeader, Pipe]:
    """A stream to `peer`; `ControlFailure` if there can be none."""
    request = p2pd_pb2.StreamOpenRequest(peer=peer.to_bytes(), proto=[protocol])
    kind = p2pd_pb2.Request.STREAM_OPEN
    pipe = await connect(str(socket))
    try:
        response = await _exchange(pipe, p2pd_pb2.Request(type=kind, streamOpen=request))
    except BaseException:
        pipe.abort()
        raise
    return _header(response.streamInfo), pipe


async def receive_header(pipe: Pipe) -> StreamHeader:
    """The header with which p2pd begins each stream that it brings us."""
    info = p2pd_pb2.StreamInfo()
    info.ParseFromString(await _receive(pipe))
    return _header(info)


def _texts(addresses: Iterable[bytes]) -> Iterator[str]:
    for address in addresses:
        try:
            yield str(Multiaddr(address))
        except (MultiaddrError, ValueError):
            continue  # of a kind that this library does not know


def _header(info: p2pd_pb2.StreamInfo) -> StreamHeader:
    if len(info.peer) > limits.DHT_SUBKEY_BYTES_MAX:  # base58 takes seconds for a long one
        raise ControlFailure(f"a peer id of {len(info.peer)} bytes")
    return StreamHeader(PeerID(info.peer), info.proto)


async def _ask(socket: Path, request: p2pd_pb2.Request) -> None:
    pipe = await connect(str(socket))
    try:
        await _exchange(pipe, request)
    finally:
        pipe.abort()


async def _exchange(pipe: Pipe, request: p2pd_pb2.Request) -> p2pd_pb2.Response:
    body: bytes = request.SerializeToString()
    await pipe.send(_varint(len(body)) + body)
    response = p2pd_pb2.Response()
    try:
        response.ParseFromString(await _receive(pipe))
    except DecodeError as error:
        raise ControlFailure("an answer that cannot be decoded") from error
    if response.type == p2pd_pb2.Response.ERROR:
        raise ControlFailure(response.error.msg)
    return response


async def _receive(pipe: Pipe) -> bytes:
    length = 0
    for index in range(_VARINT_BYTES_MAX):
        byte = (await pipe.receive_exactly(1))[0]
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    if length > MESSAGE_BYTES_MAX:
        raise ControlFailure(f"a message of {length} bytes")
    return await pipe.receive_exactly(length)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
