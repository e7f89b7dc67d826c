"""Requests to p2pd over connections of their own, closed whatever comes.

Knows p2pd's control messages; must not know what a stream is for. hivemind has the same calls, but
leaves its connection to the garbage collector when p2pd says no or when the caller gives up.
"""

import asyncio
from collections.abc import Sequence

from hivemind.p2p import PeerID
from hivemind.p2p.p2p_daemon_bindings.control import DaemonConnector
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.p2p.p2p_daemon_bindings.utils import (
    ControlFailure,
    read_pbmsg_safe,
    write_pbmsg,
)
from hivemind.proto import p2pd_pb2
from hivemind.utils.multiaddr import Multiaddr


async def dial(connector: DaemonConnector, peer: PeerID, where: Sequence[Multiaddr]) -> None:
    """Have p2pd connect to `peer`; `ControlFailure` with its reason if it cannot."""
    connect = p2pd_pb2.ConnectRequest(
        peer=peer.to_bytes(), addrs=[address.to_bytes() for address in where]
    )
    request = p2pd_pb2.Request(type=p2pd_pb2.Request.CONNECT, connect=connect)
    reader, writer = await connector.open_connection()
    try:
        await _exchange(reader, writer, request)
    finally:
        writer.close()


async def open_stream(
    connector: DaemonConnector, peer: PeerID, protocol: str
) -> tuple[PeerID, asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream to `peer`, and who is at its other end; `ControlFailure` if there can be none."""
    stream_open = p2pd_pb2.StreamOpenRequest(peer=peer.to_bytes(), proto=[protocol])
    request = p2pd_pb2.Request(type=p2pd_pb2.Request.STREAM_OPEN, streamOpen=stream_open)
    reader, writer = await connector.open_connection()
    try:
        response = await _exchange(reader, writer, request)
    except BaseException:
        writer.close()
        raise
    return StreamInfo.from_protobuf(response.streamInfo).peer_id, reader, writer


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: p2pd_pb2.Request
) -> p2pd_pb2.Response:
    await write_pbmsg(writer, request)
    response = p2pd_pb2.Response()
    await read_pbmsg_safe(reader, response)
    if response.type == p2pd_pb2.Response.ERROR:
        raise ControlFailure(response.error.msg)
    return response
