"""What cards' specialists did is known after a restart, whatever became of the file."""

import logging
from pathlib import Path

import pytest

from coordinator.reputation import HALF_LIFE_SECONDS, Outcome
from node.swarms.folder import OUTCOMES_BYTES_MAX, SwarmFolder
from node.swarms.outcome_book import OutcomeBook
from protocols.adapters.clock import ManualClock
from protocols.errors import ConfigError
from protocols.ids import SpecialistId
from protocols.membership.charter import Charter
from protocols.records import CapabilityCard
from protocols.signing import Identity

ME, LIAR = Identity(b"m" * 32), Identity(b"l" * 32).peer_id
CARD = CapabilityCard(LIAR, "s", 1, 1e10, "law", "d", "b", "fp32", 9)


@pytest.fixture
def folder(tmp_path: Path) -> SwarmFolder:
    return SwarmFolder.create(tmp_path / "swarms", Charter("map", ME.peer_id), ME)


def died(book: OutcomeBook, clock: ManualClock) -> None:
    book.outcomes.report(SpecialistId("law"), LIAR, Outcome.DIED, clock.monotonic())


def test_a_card_that_failed_is_not_trusted_anew_after_a_restart(folder: SwarmFolder) -> None:
    clock = ManualClock()
    book = OutcomeBook(folder, clock)
    assert not book.save()
    died(book, clock)
    assert book.save()
    assert not book.save()
    file = folder.path / "outcomes"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.path.iterdir() if path.name.startswith(".")] == []
    clock.advance(HALF_LIFE_SECONDS)
    again = OutcomeBook(SwarmFolder.load(folder.path), clock)
    assert again.outcomes.expected(CARD, clock.monotonic()) == pytest.approx(2 / 3)
    assert not again.save()
    died(again, clock)
    assert again.save()
    again.outcomes.report(SpecialistId("law"), LIAR, Outcome.COMPLETED, clock.monotonic())
    assert again.save()


def test_where_nothing_shall_be_remembered_nothing_is_read_or_written(
    folder: SwarmFolder,
) -> None:
    clock = ManualClock()
    before = OutcomeBook(folder, clock)
    died(before, clock)
    assert before.save()
    file = folder.path / "outcomes"
    kept = file.read_bytes()
    book = OutcomeBook(folder, clock, is_kept=False)
    assert len(book.outcomes) == 0
    died(book, clock)
    assert not book.save()
    assert file.read_bytes() == kept
    assert len(book.outcomes) == 1, "but it counts while the node runs"


@pytest.mark.parametrize(
    "data", [b"\xff" * 40, b"\x81\xa7version\x02", bytes(OUTCOMES_BYTES_MAX + 1)]
)
def test_a_damaged_file_is_told_of_and_written_anew(
    folder: SwarmFolder, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder.save_outcomes(data)
    clock = ManualClock()
    with caplog.at_level(logging.WARNING):
        book = OutcomeBook(folder, clock)
    assert "begin as newcomers" in caplog.text
    assert len(book.outcomes) == 0
    died(book, clock)
    assert book.save()
    assert len(OutcomeBook(folder, clock).outcomes) == 1


def test_what_cannot_be_written_is_written_the_next_time(
    folder: SwarmFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: SwarmFolder, __: bytes) -> None:
        raise ConfigError("no space left on device")

    clock = ManualClock()
    book = OutcomeBook(folder, clock)
    died(book, clock)
    with monkeypatch.context() as patched:
        patched.setattr(SwarmFolder, "save_outcomes", full)
        with pytest.raises(ConfigError):
            book.save()
    assert book.save()
    assert len(OutcomeBook(folder, clock).outcomes) == 1
