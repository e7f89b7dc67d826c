"""The directory: bounds, forgeries, nearest names; order is the property tests' business."""

import pytest

from coordinator.card_shelf import CardShelf
from coordinator.directory import RECORDS_PER_PEER_MAX, Directory
from coordinator.verify import Verifier
from protocols.errors import ProtocolError, RecordError
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.records import CapabilityCard, IndexRecord, NodeRecord, keys_of, seal
from protocols.signing import Identity

SWARM = SwarmId("public")
ME = Identity(bytes(32))
NOW = 1_700_000_000.0


def node(swarm: str = "public", peer: Identity = ME, sequence: int = 1) -> NodeRecord:
    return NodeRecord(peer.peer_id, swarm, sequence, NOW + 60, (), "0.1.0", ())


def offer(
    directory: Directory, record: NodeRecord | CapabilityCard | IndexRecord, peer: Identity
) -> bytes:
    data = seal(record, peer)
    directory.offer(data, keys_of(record)[0], peer.peer_id, NOW)
    return data


def test_repeated_offers_cost_one_signature_check() -> None:
    verifier = Verifier()
    directories = [Directory(SWARM, ME.peer_id, verifier) for _ in range(3)]
    for directory in directories:
        for _ in range(3):
            offer(directory, node(), ME)
    assert verifier.checks == 1


def test_refusals_are_remembered_and_counted() -> None:
    verifier = Verifier()
    directory = Directory(SWARM, ME.peer_id, verifier)
    for _ in range(3):
        with pytest.raises(ProtocolError):
            directory.offer(b"rubbish", "key", ME.peer_id, NOW)
    assert verifier.checks == 1
    assert directory.statistics(NOW).refused == 3


def test_the_verifier_forgets_the_oldest() -> None:
    verifier = Verifier(capacity=2)
    sealed = [seal(node(sequence=n), ME) for n in range(3)]
    for data in sealed:
        verifier.open(data)
    verifier.open(sealed[2])
    assert verifier.checks == 3
    verifier.open(sealed[0])
    assert verifier.checks == 4


def test_other_swarms_stay_out() -> None:
    directory = Directory(SWARM, ME.peer_id)
    with pytest.raises(RecordError, match="another swarm"):
        offer(directory, node("other"), ME)
    with pytest.raises(RecordError, match="another swarm"):
        offer(directory, IndexRecord(ME.peer_id, "dslm/1/other/peers", 1, NOW + 60), ME)


def test_a_peer_may_not_fill_the_directory() -> None:
    directory = Directory(SWARM, ME.peer_id)
    for number in range(RECORDS_PER_PEER_MAX):
        offer(directory, IndexRecord(ME.peer_id, f"dslm/1/public/{number}", 1, NOW + 60), ME)
    with pytest.raises(RecordError, match="more records"):
        offer(directory, node(), ME)


def test_who_stays_in_a_full_directory_depends_on_us_not_on_the_order() -> None:
    crowd = [Identity(bytes([number]) * 32) for number in range(40)]
    kept: list[set[str]] = []
    for me, order in ((ME, crowd), (ME, crowd[::-1]), (crowd[7], crowd)):
        directory = Directory(SWARM, me.peer_id, peers_max=10)
        for peer in order:
            offer(directory, node(peer=peer), peer)
        kept.append({record.peer for record in directory.nodes(NOW)})
    assert [len(peers) for peers in kept] == [10, 10, 10]
    assert kept[0] == kept[1] != kept[2]
    assert crowd[7].peer_id in kept[2]
    assert PeerId(ME.peer_id) in kept[0]


def card(peer: Identity, number: int, life: float = 60.0, text: str = "x" * 500) -> CapabilityCard:
    end = NOW + life
    return CapabilityCard(peer.peer_id, SWARM, 1, end, f"s{number}", "d", "b", "fp32", 9, (), text)


def test_one_peer_s_records_have_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.directory.BYTES_PER_PEER_MAX", 5_000)
    directory, other = Directory(SWARM, ME.peer_id), Identity(b"o" * 32)
    taken = 0
    with pytest.raises(RecordError, match="bytes"):
        for number in range(100):
            offer(directory, card(other, number), other)
            taken += 1
    assert 3 <= taken < 10
    offer(directory, card(other, 0, text="short"), other)  # not newer: the longer one stays
    assert directory.statistics(NOW).cards == taken
    offer(directory, card(ME, 0), ME)


def test_all_records_together_have_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.directory.BYTES_MAX", 20_000)
    crowd = [Identity(bytes([number]) * 32) for number in range(1, 60)]
    kept = []
    for order in (crowd, crowd[::-1]):
        directory = Directory(SWARM, ME.peer_id)
        offer(directory, card(ME, 0), ME)
        for peer in order:
            offer(directory, card(peer, 0), peer)
        kept.append({record.peer for record in directory.cards(NOW)})
    assert 10 <= len(kept[0]) <= 20_000 // 500
    assert kept[0] == kept[1]
    assert ME.peer_id in kept[0]


def test_what_is_forgotten_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.directory.BYTES_MAX", 20_000)
    monkeypatch.setattr("coordinator.directory.BYTES_PER_PEER_MAX", 5_000)
    directory, other = Directory(SWARM, ME.peer_id), Identity(b"o" * 32)
    for _ in range(20):
        for number in range(4):
            offer(directory, card(other, number), other)
        directory.forget(other.peer_id)
    for number in range(4):
        offer(directory, card(other, number), other)
    directory.prune(NOW + 4_000)
    for number in range(10, 14):
        offer(directory, card(other, number), other)
    assert directory.statistics(NOW).cards == 4


def test_what_is_withdrawn_is_not_believed_again_until_it_is_dead() -> None:
    directory, other = Directory(SWARM, ME.peer_id), Identity(b"o" * 32)
    first, second = card(other, 0), card(other, 1)
    for one in (first, second, card(ME, 0)):
        offer(directory, one, other if one.peer == other.peer_id else ME)
    directory.withdraw(other.peer_id, {keys_of(second)[0]}, NOW, NOW + 100)
    offer(directory, first, other)
    assert {one.specialist for one in directory.cards(NOW) if one.peer == first.peer} == {"s1"}
    assert directory.statistics(NOW).cards == 2
    assert directory.sealed(first) == b""
    directory.prune(NOW + 99)
    offer(directory, first, other)
    assert directory.card(other.peer_id, SpecialistId("s0"), NOW) is None
    directory.prune(NOW + 100)
    offer(directory, first, other)
    assert directory.card(other.peer_id, SpecialistId("s0"), NOW) == first


def test_nearest_names_by_domain_then_by_spelling() -> None:
    directory = Directory(SWARM, ME.peer_id)
    for name, domain in (("acme/law", "legal"), ("maths", "numbers"), ("math-pro", "numbers")):
        card = CapabilityCard(ME.peer_id, SWARM, 1, NOW + 60, name, "d", "b", "fp32", 9, (domain,))
        offer(directory, card, ME)
    assert directory.nearest_names("legal", NOW) == ("acme/law",)
    assert directory.nearest_names("mats", NOW)[0] == "maths"
    assert directory.nearest_names("zzz", NOW) == ()


def test_of_too_many_cards_the_shelf_decides_and_wanted_ones_stay() -> None:
    shelf = CardShelf(ME.peer_id, cards_max=4)
    directory = Directory(SWARM, ME.peer_id, shelf=shelf)
    crowd = [Identity(bytes([number]) * 32) for number in range(1, 12)]
    wanted = card(crowd[0], 0)
    data = seal(wanted, crowd[0])
    key = keys_of(wanted)[0]
    directory.offer(data, key, wanted.peer, NOW, is_wanted=True)
    assert directory.sealed(wanted) == data
    for peer in crowd:
        offer(directory, node(peer=peer), peer)
        offer(directory, card(peer, 1), peer)
    assert directory.statistics(NOW).cards == 4
    assert directory.statistics(NOW).nodes == 11
    assert wanted in directory.cards(NOW)
    assert directory.is_partial(NOW)
    passed = [
        peer.peer_id
        for peer in crowd
        if directory.is_passed_over(peer.peer_id, SpecialistId("s1"), NOW)
    ]
    assert len(passed) == 11 - 3
    assert not {known.peer for known in directory.cards(NOW)[1:]} & set(passed)
    directory.prune(NOW + 10_000)
    assert (len(shelf), directory.is_partial(NOW + 10_000)) == (0, False)
    assert directory.sealed(wanted) == b""


def test_a_card_that_is_used_is_kept_before_others() -> None:
    directory = Directory(SWARM, ME.peer_id, shelf=CardShelf(ME.peer_id, cards_max=2))
    crowd = [Identity(bytes([number]) * 32) for number in range(1, 30)]
    first = card(crowd[0], 1)
    offer(directory, first, crowd[0])
    directory.want(first)
    for peer in crowd[1:]:
        offer(directory, card(peer, 1), peer)
    assert first in directory.cards(NOW)
    directory.forget(PeerId(first.peer))
    assert len(directory.cards(NOW)) == 1


def test_a_wide_domain_leads_to_what_lies_below() -> None:
    directory = Directory(SWARM, ME.peer_id)
    physics = CapabilityCard(
        *(ME.peer_id, SWARM, 1, NOW + 60, "quanta", "d", "b", "fp32", 9),
        domains=("science/physics",),
    )
    offer(directory, physics, ME)
    assert directory.nearest_names("Science", NOW) == ("quanta",)
    assert directory.nearest_names("science/physics", NOW) == ("quanta",)
    assert directory.nearest_names("physics", NOW) == ()
