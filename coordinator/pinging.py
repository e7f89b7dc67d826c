"""Asking a peer who it is, over `/dslm/info/1`; the round trip is the ping.

Knows the info message and the clock; must not know what the measurement is used for.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from protocols import versions
from protocols.channel import Channel
from protocols.errors import PeerLost, ProtocolError
from protocols.ids import PeerId
from protocols.messages.info import InfoReply, InfoRequest
from protocols.ports import Clock, Stream, Transport


@dataclass(frozen=True, slots=True)
class Pong:
    """`rtt` in seconds. `clock_skew` is how far the peer's wall clock is ahead of ours, seconds,
    wrong by half the round trip at most.
    """

    peer: PeerId
    rtt: float
    clock_skew: float
    reply: InfoReply


class Pinger:
    """One question per stream."""

    def __init__(self, transport: Transport, clock: Clock, rng: random.Random) -> None:
        self._transport = transport
        self._clock = clock
        self._rng = rng

    async def ping(self, peer: PeerId, addresses: Sequence[str] = ()) -> Pong:
        """`PeerUnreachable`, `PeerLost` or `ProtocolError` say why there is no answer.

        The round trip does not include opening the stream. Waits as long as the peer does: set a
        timeout around it.
        """
        stream = await self._transport.open_stream(peer, versions.INFO, addresses)
        try:
            pong = await self._exchange(stream)
            await stream.close()
        finally:
            stream.abort()
        return pong

    async def _exchange(self, stream: Stream) -> Pong:
        nonce = self._rng.getrandbits(53)
        wall, sent = self._clock.now(), self._clock.monotonic()
        channel: Channel[InfoReply] = Channel(stream, InfoReply)
        await channel.send(InfoRequest(nonce, versions.SOFTWARE))
        reply = await channel.receive()
        rtt = self._clock.monotonic() - sent
        if reply is None:
            raise PeerLost(f"{stream.peer} ended the stream without an answer")
        if reply.nonce != nonce:
            raise ProtocolError("the answer belongs to another question")
        return Pong(stream.peer, rtt, reply.clock - (wall + rtt / 2), reply)
