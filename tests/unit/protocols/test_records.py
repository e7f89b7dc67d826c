"""Records: sealed, opened, believed only where, when and from whom they may be."""

import msgspec
import pytest

from protocols import limits
from protocols.errors import ProtocolError, RecordError
from protocols.ids import SwarmId
from protocols.records import (
    CapabilityCard,
    IndexRecord,
    NodeRecord,
    believe,
    check_time,
    keys_of,
    node_key,
    open_sealed,
    seal,
    swarm_key,
)
from protocols.signing import Identity

ALICE, BOB = Identity(bytes(32)), Identity(bytes([1]) * 32)
SWARM = SwarmId("public")
NOW = 1_700_000_000.0


def node(expires_at: float = NOW + 60, sequence: int = 1) -> NodeRecord:
    return NodeRecord(
        peer=ALICE.peer_id,
        swarm=SWARM,
        sequence=sequence,
        expires_at=expires_at,
        addresses=("/ip4/127.0.0.1/tcp/1",),
        software="0.1.0",
        protocols=("/dslm/ask/1",),
    )


def card(specialist: str = "law", description: str = "") -> CapabilityCard:
    return CapabilityCard(
        peer=ALICE.peer_id,
        swarm=SWARM,
        sequence=1,
        expires_at=NOW + 60,
        specialist=specialist,
        model_digest="d",
        base="b",
        precision="fp32",
        context_length=10,
        description=description,
    )


@pytest.mark.parametrize(
    "record",
    [node(), card(), IndexRecord(ALICE.peer_id, swarm_key(SWARM), 1, NOW + 60, ("law",))],
)
def test_a_sealed_record_is_believed_in_its_place(
    record: NodeRecord | CapabilityCard | IndexRecord,
) -> None:
    data = seal(record, ALICE)
    assert open_sealed(data) == record
    (key,) = keys_of(record)
    assert believe(data, key, ALICE.peer_id, NOW) == record


def test_one_changed_bit_is_noticed_anywhere() -> None:
    data = seal(node(), ALICE)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(ProtocolError):
            open_sealed(bytes(changed))


def test_nobody_signs_for_another() -> None:
    with pytest.raises(RecordError, match="differs"):
        seal(node(), BOB)


def test_a_signature_of_one_kind_is_none_of_another() -> None:
    outer = msgspec.msgpack.decode(seal(node(), ALICE))
    outer["kind"] = "card"
    with pytest.raises(RecordError, match="signature"):
        open_sealed(msgspec.msgpack.encode(outer))


def test_a_record_lies_only_where_it_was_made_for() -> None:
    data, key = seal(node(), ALICE), node_key(SWARM, ALICE.peer_id)
    with pytest.raises(RecordError, match="another peer"):
        believe(data, key, BOB.peer_id, NOW)
    with pytest.raises(RecordError, match="not made for"):
        believe(data, swarm_key(SWARM), ALICE.peer_id, NOW)


def test_time_bounds() -> None:
    check_time(node(NOW + 0.001), NOW)
    longest = NOW + limits.RECORD_LIFETIME_SECONDS_MAX + limits.CLOCK_SKEW_SECONDS_MAX
    check_time(node(longest), NOW)
    with pytest.raises(RecordError, match="expired"):
        check_time(node(NOW), NOW)
    with pytest.raises(RecordError, match="longer"):
        check_time(node(longest + 1), NOW)


def test_size_and_name_are_bounded_when_sealing_too() -> None:
    with pytest.raises(ProtocolError):
        seal(card("Not A Name"), ALICE)
    with pytest.raises(ProtocolError):
        seal(card(description="x" * (limits.DESCRIPTION_BYTES_MAX + 1)), ALICE)
    with pytest.raises(RecordError, match="bytes"):
        open_sealed(bytes(limits.RECORD_BYTES_MAX + 1))
