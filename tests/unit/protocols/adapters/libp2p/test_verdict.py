"""What stored values are worth, and what a search makes of answers."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.adapters.libp2p.places import place_of
from protocols.adapters.libp2p.search import Search, Wanted
from protocols.adapters.libp2p.verdict import Judge, Verdict, publisher_of, unwrap
from protocols.ids import SpecialistId, SwarmId
from protocols.records import (
    IndexRecord,
    NodeRecord,
    card_key,
    domain_key,
    node_key,
    seal,
    specialist_key,
    swarm_key,
)
from protocols.signing import Identity
from tests.effort import examples

SWARM = SwarmId("public")
PEER = Identity(b"p" * 32)
OTHER = Identity(b"o" * 32)
END = 1_700_000_060.0
KEY = node_key(SWARM, PEER.peer_id)
PLACE = place_of(KEY, 0)
RECORD = NodeRecord(PEER.peer_id, SWARM, 1, END, (), "0.1.0", ())
SEALED = msgspec.msgpack.encode(seal(RECORD, PEER))


def test_keys_that_name_their_publisher() -> None:
    peer = PEER.peer_id
    assert publisher_of(KEY) == peer
    assert publisher_of(card_key(SWARM, peer, SpecialistId("acme/law"))) == peer
    for key in (
        swarm_key(SWARM),
        specialist_key(SWARM, SpecialistId("law")),
        domain_key(SWARM, "node"),
        "key",
        "",
    ):
        assert publisher_of(key) is None


def test_a_record_is_genuine_only_as_signed() -> None:
    judge = Judge()
    for _ in range(2):  # the second time from memory
        assert judge.judge(PLACE, PEER.peer_id, SEALED, END) is Verdict.GENUINE
        assert judge.judge(PLACE, OTHER.peer_id, SEALED, END) is Verdict.FORGED
        assert judge.judge(PLACE, PEER.peer_id, SEALED, END + 1) is Verdict.FORGED
        other = place_of(swarm_key(SWARM), 0)
        assert judge.judge(other, PEER.peer_id, SEALED, END) is Verdict.FORGED


def test_what_does_not_look_like_a_record_is_opaque() -> None:
    judge = Judge()
    for value in (b"value", b"", msgspec.msgpack.encode({"kind": "other", "signer": 1})):
        stored = msgspec.msgpack.encode(value)
        assert judge.judge(PLACE, PEER.peer_id, stored, END) is Verdict.OPAQUE
    assert judge.judge(PLACE, PEER.peer_id, b"\xc1", END) is Verdict.OPAQUE


@settings(max_examples=examples(300), deadline=None)
@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_no_altered_byte_passes(index: int, change: int) -> None:
    altered = bytearray(SEALED)
    altered[index] ^= change
    assert Judge().judge(PLACE, PEER.peer_id, bytes(altered), END) is not Verdict.GENUINE


@given(st.binary(max_size=200))
def test_any_bytes_get_a_verdict(value: bytes) -> None:
    assert Judge().judge(PLACE, PEER.peer_id, value, END) is not Verdict.GENUINE
    unwrap(value)


def test_the_memory_is_bounded() -> None:
    judge = Judge(capacity=3)
    for sequence in range(10):
        record = IndexRecord(PEER.peer_id, "dslm/1/public/peers", sequence, END)
        sealed = msgspec.msgpack.encode(seal(record, PEER))
        place = place_of("dslm/1/public/peers", 0)
        assert judge.judge(place, PEER.peer_id, sealed, END) is Verdict.GENUINE
    assert len(judge._seen) == 3


def test_a_search_prefers_what_was_signed_to_what_lives_longer() -> None:
    garbage = msgspec.msgpack.encode(b"garbage")
    for answers in ([SEALED, garbage], [garbage, SEALED]):
        search = Search(Judge())
        for value in answers:
            search.add(PLACE, [(PEER.peer_id, value, END if value == SEALED else END + 900)])
        assert search.best[PEER.peer_id].value == SEALED
        assert not search.is_enough, "nothing in particular was wanted"


def test_an_answer_is_not_read_beyond_its_first_forgery() -> None:
    search = Search(Judge())
    search.add(PLACE, [(OTHER.peer_id, SEALED, END), (PEER.peer_id, SEALED, END)])
    assert search.best == {}


@pytest.mark.parametrize(("beyond", "is_enough"), [(END - 1, True), (END, False)])
async def test_a_search_is_over_when_it_has_what_was_wanted(beyond: float, is_enough: bool) -> None:
    search = Search(Judge(), Wanted(PEER.peer_id, beyond))
    search.add(PLACE, [(PEER.peer_id, msgspec.msgpack.encode(b"garbage"), END + 900)])
    assert not search.is_over
    search.add(PLACE, [(PEER.peer_id, SEALED, END)])
    assert search.is_over is is_enough
    again = search.resumed()
    assert not again.is_over
    assert again.best == search.best
