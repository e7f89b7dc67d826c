"""Records in any order, repeated and late, lies among them: the same final state everywhere.

100 orders each; 10,000 with `DSLM_THOROUGH=1`, as before a change lands.
"""

from dataclasses import dataclass

import msgspec
from hivemind.dht.routing import DHTID
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.directory import Directory
from coordinator.verify import Verifier
from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p.places import place_of
from protocols.adapters.libp2p.table import RecordTable
from protocols.adapters.libp2p.verdict import Judge
from protocols.errors import ProtocolError
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.records import CapabilityCard, NodeRecord, card_key, node_key, seal
from protocols.signing import Identity
from tests.effort import THOROUGH

ORDERS = 10_000 if THOROUGH else 100
SWARM = SwarmId("public")
LAW = SpecialistId("law")
START = 4_000_000_000.0
END = 50
"""Everything has arrived by then; some of it had ended before."""
LIVES = (5, 20, 40, 60, 80, 100)
PEERS = [Identity(bytes([number, 2]) * 16) for number in range(3)]
JUDGE = Judge()
VERIFIER = Verifier()


@dataclass(frozen=True)
class Made:
    """A value and where it is stored; `is_true` if its publisher made it for there and so long."""

    key: str
    subkey: PeerId
    data: bytes
    expires_at: float
    is_true: bool


def _make(peer: int, kind: str, renewal: int) -> Made:
    """As a publisher makes them: the later, the greater the sequence and the end."""
    identity, expires_at = PEERS[peer], START + LIVES[renewal]
    record: NodeRecord | CapabilityCard
    if kind == "node":
        key = node_key(SWARM, identity.peer_id)
        record = NodeRecord(identity.peer_id, SWARM, renewal, expires_at, (), "0.1.0", ())
    else:
        key = card_key(SWARM, identity.peer_id, LAW)
        record = CapabilityCard(
            identity.peer_id, SWARM, renewal, expires_at, LAW, "d", "b", "fp32", 9
        )
    return Made(key, identity.peer_id, seal(record, identity), expires_at, is_true=True)


def _lie(true: Made, kind: str) -> Made:
    match kind:
        case "longer":
            return Made(true.key, true.subkey, true.data, true.expires_at + 500, is_true=False)
        case "elsewhere":
            key = node_key(SWARM, PEERS[0].peer_id) + "x"
            return Made(key, true.subkey, true.data, true.expires_at, is_true=False)
        case "stolen":
            other = next(peer.peer_id for peer in PEERS if peer.peer_id != true.subkey)
            return Made(true.key, other, true.data, true.expires_at, is_true=False)
        case _:
            altered = bytearray(true.data)
            altered[-1] ^= 1
            return Made(true.key, true.subkey, bytes(altered), true.expires_at + 9, is_true=False)


truths = st.builds(
    _make,
    st.integers(0, 2),
    st.sampled_from(["node", "card"]),
    st.integers(0, len(LIVES) - 1),
)
lies = st.builds(_lie, truths, st.sampled_from(["longer", "elsewhere", "stolen", "altered"]))
stories = st.lists(st.one_of(truths, truths, lies), max_size=16)
State = dict[tuple[str, str], bytes]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Made], list[tuple[Made, int]]]:
    """What was made, and one way in which it arrives: each once at least, at rising seconds."""
    story = draw(stories)
    repeated = draw(st.lists(st.sampled_from(story), max_size=6)) if story else []
    order = draw(st.permutations([*story, *repeated]))
    times = sorted(
        draw(st.lists(st.integers(0, END - 1), min_size=len(order), max_size=len(order)))
    )
    return story, list(zip(order, times, strict=True))


def _expected(story: list[Made]) -> State:
    """For each place the true record that lives longest, if it still lives."""
    state: dict[tuple[str, str], Made] = {}
    for made in story:
        place = (made.key, made.subkey)
        if made.is_true and (place not in state or state[place].expires_at < made.expires_at):
            state[place] = made
    return {place: made.data for place, made in state.items() if made.expires_at > START + END}


@settings(max_examples=ORDERS, deadline=None)
@given(histories())
def test_the_table_ends_up_the_same(history: tuple[list[Made], list[tuple[Made, int]]]) -> None:
    story, arrivals = history
    clock = ManualClock(START)
    table = RecordTable(clock, judge=JUDGE)
    for made, at in arrivals:
        clock.advance(START + at - clock.now())
        taken = table.store_subkey(_place(made), made.subkey, _wrap(made), made.expires_at)
        assert not taken or made.is_true
    clock.advance(START + END - clock.now())
    found: State = {}
    for made in story:
        kept = table.peek(_place(made)).get(made.subkey)
        if kept is not None:
            found[made.key, made.subkey] = msgspec.msgpack.decode(kept.value)
    assert found == _expected(story)


@settings(max_examples=ORDERS, deadline=None)
@given(histories())
def test_the_directory_ends_up_the_same(history: tuple[list[Made], list[tuple[Made, int]]]) -> None:
    story, arrivals = history
    directory, believed = Directory(SWARM, PEERS[0].peer_id, VERIFIER), set()
    for made, at in arrivals:
        try:
            directory.offer(made.data, made.key, made.subkey, START + at)
            believed.add((made.key, made.subkey))
        except ProtocolError:
            continue
    now = START + END
    shown: State = {}
    records: list[NodeRecord | CapabilityCard] = [*directory.nodes(now), *directory.cards(now)]
    for record in records:
        identity = next(peer for peer in PEERS if peer.peer_id == record.peer)
        key = node_key(SWARM, identity.peer_id)
        if isinstance(record, CapabilityCard):
            key = card_key(SWARM, identity.peer_id, LAW)
        shown[key, identity.peer_id] = seal(record, identity)
    # A longer life claimed for it by a liar is no lie to the directory: it goes by what was signed.
    true_or_stretched = [
        made
        if made.is_true
        else Made(made.key, made.subkey, made.data, made.expires_at - 500, True)
        for made in story
        if made.is_true or (made.expires_at > START + 500)
    ]
    assert shown == _expected(true_or_stretched)
    assert all(key.startswith("dslm/1/public/") for key, _ in believed)


@settings(max_examples=ORDERS, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=12), st.data())
def test_values_that_are_no_records_end_up_the_same_too(
    values: list[tuple[int, int]], data: st.DataObject
) -> None:
    """A record among them wins, whenever it comes."""
    true = _make(0, "node", 3)
    story = [(b"opaque %d" % number, START + END + life) for number, life in values] + [
        (_wrap(true), true.expires_at)
    ]
    table = RecordTable(ManualClock(START), judge=JUDGE)
    for value, expires_at in data.draw(st.permutations([*story, *story[:4]])):
        table.store_subkey(_place(true), true.subkey, value, expires_at)
        table.store_subkey(_place(true), "another", value, expires_at)
    kept = table.peek(_place(true))
    assert kept[true.subkey].value == _wrap(true)
    others = [(expires_at, value) for value, expires_at in story[:-1]]
    assert ("another" in kept) == bool(others)
    if others:
        assert (kept["another"].expires_at, kept["another"].value) == max(others)


def _place(made: Made) -> DHTID:
    return place_of(made.key, 0)


def _wrap(made: Made) -> bytes:
    return msgspec.msgpack.encode(made.data)
