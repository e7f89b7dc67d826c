"""What one answer set to work: which specialists at which peers, and how many bytes it moved.

Knows cards and counts; must not know what was said. What could have been asked comes from the cards
that the asker knew.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from coordinator.answer import Activity
from protocols.ids import PeerId, SpecialistId
from protocols.ports import Stream
from protocols.records import CapabilityCard


@dataclass(slots=True)
class Effort:
    """Counts for one answer; `bytes_*` are those of our streams to other peers."""

    bytes_sent: int = 0
    bytes_received: int = 0
    _asked: dict[SpecialistId, None] = field(default_factory=dict)
    _peers: dict[PeerId, None] = field(default_factory=dict)

    def asked(self, specialist: SpecialistId, peer: PeerId) -> None:
        """`specialist` was set to work at `peer`."""
        self._asked[specialist] = None
        self._peers[peer] = None

    def counted(self, stream: Stream) -> Stream:
        """`stream`, with what goes through it counted here."""
        return _Counted(stream, self)

    def activity(self, cards: Sequence[CapabilityCard]) -> Activity:
        """The sum, out of the specialists that `cards` name."""
        parameters = _Parameters(cards)
        known = {SpecialistId(card.specialist) for card in cards}
        return Activity(
            specialists=tuple(self._asked),
            specialists_known=len(known | set(self._asked)),
            parameters=parameters.of(self._asked),
            parameters_known=parameters.of(known),
            peers=tuple(self._peers),
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
        )


class _Counted:
    """A `Stream` that tells how much went through."""

    def __init__(self, stream: Stream, effort: Effort) -> None:
        self._stream = stream
        self._effort = effort

    @property
    def peer(self) -> PeerId:
        return self._stream.peer

    async def send(self, data: bytes) -> None:
        self._effort.bytes_sent += len(data)
        await self._stream.send(data)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        data = await self._stream.receive(max_bytes)
        self._effort.bytes_received += len(data)
        return data

    async def close(self) -> None:
        await self._stream.close()

    def abort(self) -> None:
        self._stream.abort()


class _Parameters:
    """How many parameters specialists have together, a base counting once for all its adapters.

    A card tells the sum of base and adapter. Where no card of the plain base is known, it is taken
    to be as large as the smallest of the sums. Of replicas that differ the smallest counts.
    """

    def __init__(self, cards: Iterable[CapabilityCard]) -> None:
        self._sums: dict[SpecialistId, int] = {}
        self._base_of: dict[SpecialistId, str] = {}
        self._bases: dict[str, int] = {}
        plain: dict[str, int] = {}
        for card in cards:
            name, base = SpecialistId(card.specialist), card.base_digest or card.model_digest
            self._sums[name] = min(card.parameters, self._sums.get(name, card.parameters))
            self._base_of[name] = base
            sizes = self._bases if card.adapter else plain
            sizes[base] = min(card.parameters, sizes.get(base, card.parameters))
        self._bases |= plain

    def of(self, specialists: Collection[SpecialistId]) -> int:
        """Of `specialists`; those without a card count nothing."""
        known = [name for name in specialists if name in self._sums]
        bases = {self._base_of[name] for name in known}
        adapters = sum(
            max(0, self._sums[name] - self._bases[self._base_of[name]]) for name in known
        )
        return adapters + sum(self._bases[base] for base in bases)
