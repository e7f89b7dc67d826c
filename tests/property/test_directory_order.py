"""The directory against a naive model: order, repeats and late arrivals do not change what it says.

The model keeps every record it ever believed and looks for the newest of each place when asked.
"""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.directory import Directory
from coordinator.verify import Verifier
from protocols.errors import ProtocolError
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.records import (
    CapabilityCard,
    IndexRecord,
    NodeRecord,
    keys_of,
    seal,
    swarm_key,
)
from protocols.signing import Identity
from tests.effort import examples

SWARM = SwarmId("public")
PEERS = [Identity(bytes([number]) * 32) for number in range(3)]
ME = PEERS[0].peer_id
NOW = 1_700_000_000.0
VERIFIER = Verifier()

Record = NodeRecord | CapabilityCard | IndexRecord


@dataclass(frozen=True)
class Made:
    """A sealed record and its place."""

    record: Record
    data: bytes
    key: str


def _make(peer: int, kind: str, sequence: int, lives: int, swarm: str) -> Made:
    identity, expires = PEERS[peer], NOW + lives
    record: Record
    if kind == "node":
        record = NodeRecord(
            identity.peer_id, swarm, sequence, expires, (), "0.1.0", (), name=f"life {lives}"
        )
    elif kind == "index":
        record = IndexRecord(identity.peer_id, swarm_key(SwarmId(swarm)), sequence, expires)
    else:
        record = CapabilityCard(
            identity.peer_id, swarm, sequence, expires, kind, "d", "b", "fp32", 9
        )
    return Made(record, seal(record, identity), keys_of(record)[0])


made = st.builds(
    _make,
    st.integers(0, 2),
    st.sampled_from(["node", "index", "law", "maths"]),
    st.integers(0, 3),
    st.sampled_from([-5, 10, 20, 30, 9_999]),
    st.sampled_from(["public", "public", "public", "other"]),
)
Offers = list[tuple[Made, int]]
offers = st.lists(st.tuples(made, st.integers(0, 25)), max_size=14)


def _directory(offered: Offers) -> Directory:
    directory = Directory(SWARM, ME, VERIFIER)
    for item, at in offered:
        try:
            directory.offer(item.data, item.key, item.record.peer, NOW + at)
        except ProtocolError:
            continue
    return directory


def _model(offered: Offers, now: float) -> set[bytes]:
    """The bytes of all records that count at `now`."""
    best: dict[tuple[str, str], Made] = {}
    for item, at in offered:
        record = item.record
        is_alive = NOW + at < record.expires_at <= NOW + at + 3_660
        if not is_alive or not item.key.startswith("dslm/1/public/"):
            continue
        place = (item.key, record.peer)
        rank = (record.sequence, record.expires_at, item.data)
        held = best.get(place)
        if held is None or rank > (held.record.sequence, held.record.expires_at, held.data):
            best[place] = item
    return {item.data for item in best.values() if item.record.expires_at > now}


def _shown(directory: Directory, now: float) -> set[bytes]:
    """What the directory shows of nodes and cards, sealed again to compare bytes."""
    by_peer = {identity.peer_id: identity for identity in PEERS}
    records: list[Record] = [*directory.nodes(now), *directory.cards(now)]
    return {seal(record, by_peer[PeerId(record.peer)]) for record in records}


def _without_indexes(sealed: set[bytes]) -> set[bytes]:
    return {data for data in sealed if not isinstance(VERIFIER.open(data), IndexRecord)}


@settings(max_examples=examples(400), deadline=None)
@given(offers, st.randoms(use_true_random=False), st.integers(26, 40))
def test_any_order_any_repeats_same_state(offered: Offers, rng: object, later: int) -> None:
    shuffled = [*offered, *offered[: len(offered) // 2]]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    now = NOW + later
    expected = _without_indexes(_model(offered, now))
    for history in (offered, shuffled, list(reversed(offered))):
        directory = _directory(history)
        assert _shown(directory, now) == expected
        directory.prune(now)
        assert _shown(directory, now) == expected


@settings(max_examples=examples(200), deadline=None)
@given(offers, offers)
def test_late_old_records_change_nothing_newer(first: Offers, late: Offers) -> None:
    """Pruning between does not let an old record back in."""
    directory = _directory(first)
    directory.prune(NOW + 26)
    for item, _ in late:
        try:
            directory.offer(item.data, item.key, item.record.peer, NOW + 27)
        except ProtocolError:
            continue
    history = [*first, *((item, 27) for item, _ in late)]
    assert _shown(directory, NOW + 28) == _without_indexes(_model(history, NOW + 28))


@settings(max_examples=examples(200), deadline=None)
@given(offers)
def test_queries_agree_with_each_other(offered: Offers) -> None:
    directory, now = _directory(offered), NOW + 25
    cards = directory.cards(now)
    names = directory.specialists(now)
    assert sorted({card.specialist for card in cards}) == list(names)
    assert [card for name in names for card in directory.replicas(name, now)] == list(cards)
    for node in directory.nodes(now):
        assert directory.node(PeerId(node.peer), now) == node
    for card in cards:
        assert directory.card(PeerId(card.peer), SpecialistId(card.specialist), now) == card
    statistics = directory.statistics(now)
    assert (statistics.nodes, statistics.cards) == (len(directory.nodes(now)), len(cards))
