"""How a stranger in a public swarm earns a larger share of us, and loses it again.

Knows what peers did to us and when, as numbers; must not know who they are otherwise, nor enforce
anything: the gate asks. Standing is this node's own experience, and is told to nobody.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from protocols import allowances
from protocols.codec import decode_header
from protocols.ids import PeerId
from protocols.ports import Allowance

KNOWN_AFTER_SECONDS = 600.0
"""Of presence without a violation. Time away does not count, so that making a thousand identities
and coming back later earns nothing."""
PRESENCE_GAP_SECONDS = 60.0
"""Two meetings further apart than this are two visits."""
KNOWN_AFTER_TOKENS = 256
"""Or so many tokens that it made for us and that we accepted."""
OFFENCES_MAX = 6
OFFENCE_FADES_SECONDS = 3_600.0
"""Of presence without another. Each offence that has not faded doubles what has to be earned."""
PEERS_MAX = 4_096

_Seconds = Annotated[float, Meta(ge=0, le=1e11)]
_PeerText = Annotated[str, Meta(max_length=64)]


class Conduct(Struct):
    """What one peer has earned since its last offence."""

    last_met: _Seconds
    present: _Seconds = 0.0
    tokens: Annotated[int, Meta(ge=0)] = 0
    offences: Annotated[int, Meta(ge=0, le=OFFENCES_MAX)] = 0

    @property
    def is_known(self) -> bool:
        """Whether it has earned more than a newcomer's share."""
        times = 1 << self.offences
        return self.present >= KNOWN_AFTER_SECONDS * times or (
            self.tokens >= KNOWN_AFTER_TOKENS * times
        )


class Standing:
    """The conduct of up to 4,096 peers. Times are Unix seconds; a clock that jumps earns nobody
    anything. When there are too many, newcomers are forgotten before known peers, and of each the
    one met longest ago: so a flood of new identities costs only other newcomers.
    """

    def __init__(self, peers_max: int = PEERS_MAX) -> None:
        self._peers_max = peers_max
        self._peers: dict[PeerId, Conduct] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def met(self, peer: PeerId, now: float) -> None:
        """`peer` is connected or speaks to us: say so every few seconds while it lasts."""
        conduct = self._conduct(peer, now)
        passed = now - conduct.last_met
        conduct.last_met = now
        if not 0 < passed <= PRESENCE_GAP_SECONDS:
            return
        conduct.present += passed
        if conduct.offences and conduct.present >= OFFENCE_FADES_SECONDS:
            conduct.offences -= 1
            conduct.present = KNOWN_AFTER_SECONDS * (1 << conduct.offences)

    def served(self, peer: PeerId, tokens: int, now: float) -> None:
        """`peer` made so many tokens for us that we accepted."""
        self.met(peer, now)
        self._peers[peer].tokens += max(0, tokens)

    def offended(self, peer: PeerId, now: float) -> None:
        """`peer` broke a protocol or went far over its limits: it begins anew, and it takes longer.

        Call it for what cannot happen by accident, not for each request over the limit.
        """
        conduct = self._conduct(peer, now)
        conduct.present, conduct.tokens = 0.0, 0
        conduct.offences = min(OFFENCES_MAX, conduct.offences + 1)
        conduct.last_met = now

    def is_known(self, peer: PeerId) -> bool:
        """Whether `peer` is more than a newcomer."""
        conduct = self._peers.get(peer)
        return conduct is not None and conduct.is_known

    def allowance_of(self, peer: PeerId) -> Allowance:
        """What `peer`, who is in the swarm, may use."""
        return allowances.KNOWN if self.is_known(peer) else allowances.NEWCOMER

    def dump(self) -> bytes:
        """Everything as bytes, for a restart."""
        return msgspec.msgpack.encode(self._peers)

    @classmethod
    def load(cls, data: bytes, peers_max: int = PEERS_MAX) -> "Standing":
        """What `dump` made; `ProtocolError` if it is damaged."""
        standing = cls(peers_max)
        found = decode_header(_decoder, data)
        for peer in list(found)[-peers_max:]:
            standing._peers[PeerId(peer)] = found[peer]
        return standing

    def _conduct(self, peer: PeerId, now: float) -> Conduct:
        """What is kept of `peer`, which is the last met from now on."""
        conduct = self._peers.pop(peer, None)
        if conduct is None:
            self._make_room()
            conduct = Conduct(now)
        self._peers[peer] = conduct
        return conduct

    def _make_room(self) -> None:
        if len(self._peers) < self._peers_max:
            return
        quietest = next(iter(self._peers))
        least = next((peer for peer, one in self._peers.items() if not one.is_known), quietest)
        del self._peers[least]


_decoder = msgspec.msgpack.Decoder(dict[_PeerText, Conduct])
