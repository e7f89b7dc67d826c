"""Notes of what was read, and the question whether fetching pays."""

import pytest

from node.services import memory_notes
from node.services.memory_links import FAULT_SECONDS, LINK_SECONDS, MemoryLinks
from node.services.memory_notes import (
    NOTE_SECONDS,
    NOTES_MAX,
    NOTES_PER_CLIENT_MAX,
    NOTES_PER_TICKET_MAX,
    MemoryNotes,
)
from node.services.memory_ports import PromptPages
from protocols.ids import PeerId, SpecialistId

LAW = SpecialistId("law")
PEER = PeerId("peer")


def pages(ticket: str, client: str = "c", length: int = 32) -> PromptPages:
    return PromptPages(tuple(range(length)), client, "", ticket)


def test_a_note_is_found_by_its_ticket_for_ten_minutes() -> None:
    notes = MemoryNotes()
    notes.add(LAW, pages("a"), 0.0)
    notes.add(LAW, pages("a", length=48), 1.0)
    assert [len(one.pages.tokens) for one in notes.find("a", 2.0)] == [32, 48]
    assert notes.find("b", 2.0) == ()
    assert [len(one.pages.tokens) for one in notes.find("a", NOTE_SECONDS)] == [48]
    assert notes.find("a", NOTE_SECONDS + 1) == ()
    assert len(notes) == 0


def test_what_was_sent_often_enough_is_not_sent_again() -> None:
    notes = MemoryNotes()
    notes.add(LAW, pages("a"), 0.0)
    (note,) = notes.find("a", 0.0)
    note.reads_left = 0
    assert notes.find("a", 0.0) == ()


def test_one_client_has_a_share_and_does_not_push_others_out() -> None:
    notes = MemoryNotes()
    notes.add(LAW, pages("honest", "honest"), 0.0)
    for number in range(3 * NOTES_MAX):
        notes.add(LAW, pages(f"t{number}", "greedy"), 0.0)
    assert len(notes) == NOTES_PER_CLIENT_MAX + 1
    assert notes.find("honest", 0.0)
    assert notes.find(f"t{3 * NOTES_MAX - 1}", 0.0)


def test_many_clients_share_the_whole() -> None:
    notes = MemoryNotes()
    for number in range(2 * NOTES_MAX):
        notes.add(LAW, pages(f"t{number}", f"c{number}"), 0.0)
    assert len(notes) == NOTES_MAX
    assert not notes.find("t0", 0.0)


def test_one_ticket_has_a_few_notes() -> None:
    notes = MemoryNotes()
    for length in range(20, 60):
        notes.add(LAW, pages("a", length=length), 0.0)
    assert [len(one.pages.tokens) for one in notes.find("a", 0.0)] == list(
        range(60 - NOTES_PER_TICKET_MAX, 60)
    )


def test_tokens_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_notes, "TOKENS_MAX", 100)
    notes = MemoryNotes()
    for number in range(5):
        notes.add(LAW, pages(f"t{number}", length=40), 0.0)
    assert len(notes) == 2
    notes.add(LAW, pages("large", length=101), 0.0)
    assert not notes.find("large", 0.0)
    assert len(notes) == 2


def test_a_quick_link_and_a_slow_engine_are_worth_a_transfer() -> None:
    links = MemoryLinks()
    links.measured(PEER, 25_000_000, 1.0, 0.01, 0.0)
    journey = links.predict(PEER, 1_500, 12_000.0, 1_700.0, 1.0)
    assert journey.alone == pytest.approx(1_500 / 1_700)
    # Both work from an end of their own, the link 10 ms later.
    assert journey.together == pytest.approx(0.01 + (1_500 - 17) / (1_700 + 25e6 / 12_000))
    assert journey.is_worth_it


@pytest.mark.parametrize(
    ("rate", "latency", "tokens", "prompt_rate"),
    [(1_000.0, 0.01, 1_500, 1_700.0), (25e6, 2.0, 1_500, 1_700.0), (25e6, 0.01, 60, 1_700.0)],
    ids=["slow link", "far away", "short prompt"],
)
def test_else_it_is_not(rate: float, latency: float, tokens: int, prompt_rate: float) -> None:
    links = MemoryLinks()
    links.measured(PEER, int(rate), 1.0, latency, 0.0)
    assert not links.predict(PEER, tokens, 12_000.0, prompt_rate, 1.0).is_worth_it


def test_an_unknown_engine_or_link_is_tried() -> None:
    links = MemoryLinks()
    assert links.predict(PEER, 1_500, 12_000.0, 0.0, 0.0).is_worth_it
    assert links.predict(PEER, 1_500, 12_000.0, 1_700.0, 0.0).is_worth_it


def test_old_measurements_and_old_faults_are_forgotten() -> None:
    links = MemoryLinks()
    links.measured(PEER, 1_000, 1.0, 0.01, 0.0)
    assert not links.predict(PEER, 1_500, 12_000.0, 1_700.0, LINK_SECONDS - 1).is_worth_it
    assert links.predict(PEER, 1_500, 12_000.0, 1_700.0, LINK_SECONDS + 1).is_worth_it
    assert not links.is_faulty(PEER, 0.0)
    links.failed(PEER, 0.0)
    assert links.is_faulty(PEER, FAULT_SECONDS - 1)
    assert not links.is_faulty(PEER, FAULT_SECONDS + 1)
