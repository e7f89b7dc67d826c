"""Does a certain peer answer at a certain address? Found out over a new connection, then hung up.

Knows TCP, multistream-select and the Noise handshake; must not use p2pd, which would answer from a
connection that it has already. Whatever the other end sends is bounded in bytes and time.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocols.adapters.libp2p.noise import Initiator
from protocols.errors import PeerUnreachable, ProtocolError
from protocols.ids import PeerId, parse_peer_id
from protocols.limits import ADDRESS_BYTES_MAX

PROBE_SECONDS = 3.0
_MULTISTREAM = b"/multistream/1.0.0\n"
_NOISE = b"/noise\n"
_LINE_BYTES_MAX = 127
"""A line of multistream-select whose length fits one byte; ours do."""
_HANDSHAKE_BYTES_MAX = 4 * 1024


async def probe(address: str, peer: PeerId) -> None:
    """Return if the holder of `peer`'s key answers at `address` (`/ip4/…/tcp/…`) within 3 s.

    `PeerUnreachable` says why not. Names are not looked up, relays not passed.
    """
    host, port = parse_target(address, peer)
    try:
        async with asyncio.timeout(PROBE_SECONDS), _connection(host, port) as (reader, writer):
            await _ask(reader, writer, peer)
    except TimeoutError:
        raise PeerUnreachable(f"no answer at {host} within {PROBE_SECONDS:.0f} s") from None
    except (OSError, EOFError, ProtocolError) as error:
        raise PeerUnreachable(f"not reached at {host}: {str(error)[:200]}") from error


def parse_target(address: str, peer: PeerId) -> tuple[str, int]:
    """Host and port in `address`, which may end in `/p2p/<peer>`; else `PeerUnreachable`."""
    parts = address.split("/") if len(address) <= ADDRESS_BYTES_MAX else []
    if parts[5:] == ["p2p", peer]:
        del parts[5:]
    if len(parts) != 5 or parts[0] or parts[1] not in ("ip4", "ip6") or parts[3] != "tcp":
        raise PeerUnreachable("only addresses like /ip4/…/tcp/… can be probed")
    try:
        parse_peer_id(peer)
        host = ipaddress.ip_address(parts[2])
        port = int(parts[4]) if parts[4].isascii() and parts[4].isdigit() else 0
    except ValueError as error:
        raise PeerUnreachable("not a network address") from error
    except ProtocolError as error:
        raise PeerUnreachable("not a peer") from error
    if f"ip{host.version}" != parts[1] or "%" in parts[2] or not 0 < port < 65_536:
        raise PeerUnreachable("not a network address")
    return str(host), port


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: PeerId) -> None:
    for line in (_MULTISTREAM, _NOISE):
        writer.write(bytes([len(line)]) + line)
    for line in (_MULTISTREAM, _NOISE):
        if await _read_line(reader) != line:
            raise ProtocolError("something else than a peer answered")
    initiator = Initiator(X25519PrivateKey.generate())
    first = initiator.first()
    writer.write(len(first).to_bytes(2, "big") + first)
    length = int.from_bytes(await reader.readexactly(2), "big")
    if length > _HANDSHAKE_BYTES_MAX:
        raise ProtocolError(f"a handshake message of {length} bytes")
    initiator.read_second(await reader.readexactly(length), peer)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    length = (await reader.readexactly(1))[0]
    if length > _LINE_BYTES_MAX:
        raise ProtocolError("something else than a peer answered")
    return await reader.readexactly(length)


@asynccontextmanager
async def _connection(
    host: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port, limit=2 * _HANDSHAKE_BYTES_MAX)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
