"""What is out there, as far as we know: the newest genuine record of every kind from every peer.

Knows records and their time; must not know how they are found or what is done with them. All
methods are pure in `now` (Unix seconds). The final state does not depend on the order in which
records come, on repeats, or on old ones that come late.
"""

import difflib
import hashlib
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field

from msgspec.structs import replace

from coordinator.card_shelf import CardShelf
from coordinator.verify import Verifier
from protocols import limits
from protocols.domains import domain_prefixes
from protocols.errors import ProtocolError, RecordError
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.records import (
    CapabilityCard,
    IndexRecord,
    NodeRecord,
    Record,
    card_key,
    check_place,
    check_time,
    node_key,
)

PEERS_MAX = 4_096
RECORDS_PER_PEER_MAX = 4 * limits.SPECIALISTS_MAX
"""A node record, a card and an index entry for each specialist, and some domains."""
BYTES_PER_PEER_MAX = 1024 * 1024
BYTES_MAX = 64 * 1024 * 1024
"""Sealed records, of one peer and of all; what is made of them takes about as much again."""


@dataclass(frozen=True, slots=True)
class DirectoryStatistics:
    """Counts at one moment. `refused` counts offers that were not believed, since the start."""

    nodes: int
    cards: int
    specialists: int
    refused: int


@dataclass(frozen=True, slots=True)
class _Held:
    data: bytes
    record: Record
    forget_after: float
    """An expired record is kept until no older one of its peer can be alive: it outranks them."""

    def rank(self) -> tuple[int, float, bytes]:
        return (self.record.sequence, self.record.expires_at, self.data)


@dataclass(slots=True)
class _Known:
    """All that one peer says of itself, by store key."""

    distance: bytes
    """The greatest goes first when there are too many."""
    held: dict[str, _Held] = field(default_factory=dict)
    bytes: int = 0


class Directory:
    """Records of one swarm. When they are too many, whose stay depends on `me` alone.

    That choice (by a hash of `me` and the peer) is another for every directory and not known to
    strangers before they meet it, so a flood of invented peers cannot push chosen peers out of
    many directories at once.
    """

    def __init__(
        self,
        swarm: SwarmId,
        me: PeerId,
        verifier: Verifier | None = None,
        peers_max: int = PEERS_MAX,
        is_welcome: Callable[[PeerId], bool] = lambda _: True,
        shelf: CardShelf | None = None,
    ) -> None:
        """`is_welcome` says whose records are not believed whatever they say: the revoked.

        `shelf` decides which cards are kept when there are too many.
        """
        self._shelf = CardShelf(me) if shelf is None else shelf
        self._is_welcome = is_welcome
        self.swarm = swarm
        self.me = me
        self._verifier = verifier or Verifier()
        self._peers_max = peers_max
        self._peers: dict[PeerId, _Known] = {}
        self._bytes = 0
        self._refused = 0

    def __repr__(self) -> str:
        return f"<Directory of {self.swarm} peers={len(self._peers)}>"

    def offer(
        self, data: bytes, key: str, subkey: str, now: float, *, is_wanted: bool = False
    ) -> Record:
        """Take in what was found under (`key`, `subkey`); the record, known or new.

        A card that `is_wanted` is kept before others where there is not room for all.
        `ProtocolError` if it is not genuine, not of this swarm, not alive or not in its place.
        """
        try:
            known = self._peers.get(PeerId(subkey))
            held = known.held.get(key) if known else None
            if held is not None and held.data == data:  # believed before: only time passes
                check_time(held.record, now)
                if is_wanted:
                    self._shelf.want((subkey, key))
                return held.record
            record = self._believe(data, key, subkey, now)
            self._hold(record, data, key, now)
            self._make_room(record, data, key, is_wanted=is_wanted)
        except ProtocolError:
            self._refused += 1
            raise
        return record

    def prune(self, now: float) -> tuple[PeerId, ...]:
        """Drop what is long expired; the peers of which nothing is left."""
        gone = []
        for peer, known in list(self._peers.items()):
            for key in [key for key, held in known.held.items() if held.forget_after <= now]:
                self._drop(peer, known, key)
            if not known.held:
                self.forget(peer)
                gone.append(peer)
        return tuple(gone)

    def forget(self, peer: PeerId) -> None:
        """Drop everything that `peer` says of itself."""
        known = self._peers.pop(peer, None)
        if known is not None:
            self._count(known, -known.bytes)
            for key in known.held:
                self._shelf.remove((peer, key))

    def withdraw(self, peer: PeerId, keep: Set[str], now: float, until: float) -> None:
        """`peer` says nothing under other keys than `keep` any more.

        What it once said there is still in the record store: it is not believed again before
        `until`, when all of it is dead.
        """
        known = self._peers.get(peer)
        if known is None:
            return
        for key, held in list(known.held.items()):
            if key not in keep and held.record.expires_at > now:
                self._drop(peer, known, key)
                gone = replace(held.record, sequence=held.record.sequence + 1, expires_at=now)
                known.held[key] = _Held(b"", gone, until)

    def sealed(self, card: CapabilityCard) -> bytes:
        """The signed record of `card`, which must be one that is held; else empty."""
        peer = PeerId(card.peer)
        known = self._peers.get(peer)
        key = card_key(self.swarm, peer, SpecialistId(card.specialist))
        held = known.held.get(key) if known else None
        return held.data if held else b""

    def want(self, card: CapabilityCard) -> None:
        """`card` is of use: keep it before others."""
        peer = PeerId(card.peer)
        self._shelf.want((peer, card_key(self.swarm, peer, SpecialistId(card.specialist))))

    def is_passed_over(self, peer: PeerId, specialist: SpecialistId, now: float) -> bool:
        """Whether there was no room for this card lately."""
        return self._shelf.is_passed_over((peer, card_key(self.swarm, peer, specialist)), now)

    def is_partial(self, now: float) -> bool:
        """Whether there are cards that were found and are not kept."""
        return self._shelf.is_partial(now)

    def indexed(self, key: str, now: float) -> tuple[IndexRecord, ...]:
        """The living index records under `key`, by peer."""
        found = (self._get(peer, key, now) for peer in sorted(self._peers))
        return tuple(record for record in found if isinstance(record, IndexRecord))

    def nodes(self, now: float) -> tuple[NodeRecord, ...]:
        """All living node records, by peer id."""
        found = [record for record in self._alive(now) if isinstance(record, NodeRecord)]
        return tuple(sorted(found, key=lambda record: record.peer))

    def node(self, peer: PeerId, now: float) -> NodeRecord | None:
        """The living node record of `peer`, if there is one."""
        record = self._get(peer, node_key(self.swarm, peer), now)
        return record if isinstance(record, NodeRecord) else None

    def card(self, peer: PeerId, specialist: SpecialistId, now: float) -> CapabilityCard | None:
        """The living card of `specialist` at `peer`, if there is one."""
        record = self._get(peer, card_key(self.swarm, peer, specialist), now)
        return record if isinstance(record, CapabilityCard) else None

    def cards(self, now: float) -> tuple[CapabilityCard, ...]:
        """All living cards, by specialist, then peer."""
        found = [record for record in self._alive(now) if isinstance(record, CapabilityCard)]
        return tuple(sorted(found, key=lambda card: (card.specialist, card.peer)))

    def replicas(self, specialist: SpecialistId, now: float) -> tuple[CapabilityCard, ...]:
        """The living cards of one specialist, by peer."""
        found = (self.card(peer, specialist, now) for peer in self._peers)
        return tuple(sorted((card for card in found if card), key=lambda card: card.peer))

    def specialists(self, now: float) -> tuple[SpecialistId, ...]:
        """The names of everything that can be asked, sorted."""
        return tuple(sorted({SpecialistId(card.specialist) for card in self.cards(now)}))

    def nearest_names(self, name: str, now: float) -> tuple[str, ...]:
        """Up to three known specialists: those of a domain `name` or below, then similar names."""
        wanted = name.lower()
        of_domain = sorted(
            {
                card.specialist
                for card in self.cards(now)
                for domain in card.domains
                if wanted in domain_prefixes(domain)
            }
        )
        similar = difflib.get_close_matches(wanted, self.specialists(now), n=3, cutoff=0.5)
        return tuple(dict.fromkeys([*of_domain, *similar]))[:3]

    def statistics(self, now: float) -> DirectoryStatistics:
        """Counts of what lives now."""
        return DirectoryStatistics(
            nodes=len(self.nodes(now)),
            cards=len(self.cards(now)),
            specialists=len(self.specialists(now)),
            refused=self._refused,
        )

    def _believe(self, data: bytes, key: str, subkey: str, now: float) -> Record:
        record = self._verifier.open(data)
        check_time(record, now)
        check_place(record, key, subkey)
        if not self._is_welcome(PeerId(record.peer)):
            raise RecordError("a record of a peer that was revoked")
        match record:
            case NodeRecord() | CapabilityCard() if record.swarm != self.swarm:
                raise RecordError("a record of another swarm")
            case IndexRecord() if not key.startswith(f"dslm/1/{self.swarm}/"):
                raise RecordError("an index of another swarm")
        return record

    def _hold(self, record: Record, data: bytes, key: str, now: float) -> None:
        peer = PeerId(record.peer)
        known = self._peers.get(peer) or _Known(self._distance(peer))
        held = known.held.get(key)
        if held is None and len(known.held) >= RECORDS_PER_PEER_MAX:
            raise RecordError("a peer publishes more records than a peer may")
        # An older record of this key was made before now, so it is dead by this moment at latest.
        forget_after = now + limits.RECORD_LIFETIME_SECONDS_MAX + limits.CLOCK_SKEW_SECONDS_MAX
        offered = _Held(data, record, max(forget_after, held.forget_after if held else 0.0))
        if held is not None and offered.rank() < held.rank():
            return
        growth = len(data) - (len(held.data) if held else 0)
        if known.bytes + growth > BYTES_PER_PEER_MAX:
            raise RecordError("a peer publishes more bytes than a peer may")
        self._peers[peer] = known
        known.held[key] = offered
        self._count(known, growth)
        self._shrink()

    def _make_room(self, record: Record, data: bytes, key: str, *, is_wanted: bool) -> None:
        """Of too many cards, drop those that the shelf gives up."""
        known = self._peers.get(PeerId(record.peer))
        if not isinstance(record, CapabilityCard) or known is None:
            return
        held = known.held.get(key)
        if held is None or held.data != data:  # an older one than that which we hold
            return
        self._shelf.add((record.peer, key), record, len(data), is_wanted=is_wanted)
        for peer, place in self._shelf.overflow(record.expires_at):
            owner = self._peers[PeerId(peer)]
            self._drop(PeerId(peer), owner, place)
            if not owner.held:
                del self._peers[PeerId(peer)]

    def _drop(self, peer: PeerId, known: _Known, key: str) -> None:
        self._count(known, -len(known.held.pop(key).data))
        self._shelf.remove((peer, key))

    def _count(self, known: _Known, growth: int) -> None:
        known.bytes += growth
        self._bytes += growth

    def _shrink(self) -> None:
        while len(self._peers) > self._peers_max or self._bytes > BYTES_MAX:
            others = [peer for peer in self._peers if peer != self.me]
            if not others:
                return
            self.forget(max(others, key=lambda peer: self._peers[peer].distance))

    def _distance(self, peer: PeerId) -> bytes:
        return hashlib.sha256(f"{self.me}/{peer}".encode()).digest()

    def _get(self, peer: PeerId, key: str, now: float) -> Record | None:
        known = self._peers.get(peer)
        held = known.held.get(key) if known else None
        return held.record if held and held.record.expires_at > now else None

    def _alive(self, now: float) -> Iterator[Record]:
        for known in self._peers.values():
            for held in known.held.values():
                if held.record.expires_at > now:
                    yield held.record
