"""Cards are compared with their own texts: liars are found, honest ones left alone, at a pace."""

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.inspection import (
    BORNE_OUT,
    TRUST_IN_LIES,
    InspectionSettings,
    Inspector,
    agreement,
)
from coordinator.routing.score import make_prototype
from protocols.adapters.virtual import run_virtual
from protocols.errors import ModelFileError, Unsupported
from protocols.records import CapabilityCard, Prototype

AXES = np.eye(8, dtype=np.float32)


class WordEncoder:
    """The direction of a text is that of its first letter."""

    digest = "e"

    def __init__(self) -> None:
        self.encoded: list[tuple[float, str]] = []

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        now = asyncio.get_running_loop().time()
        self.encoded += [(now, text) for text in texts]
        return np.stack([AXES[ord(text[0]) - ord("a")] for text in texts])


def card(
    name: str, axes: str, exemplars: Sequence[str], description: str = "", sequence: int = 1
) -> CapabilityCard:
    prototypes = tuple(make_prototype(AXES[ord(axis) - ord("a")]) for axis in axes)
    return CapabilityCard(
        *("p", "s", sequence, 1e10, name, "d", "b", "fp32", 9),
        description=description,
        encoder="e",
        prototypes=prototypes,
        exemplars=tuple(exemplars),
    )


def inspector(cards: list[CapabilityCard], encoder: WordEncoder | None = None) -> Inspector:
    return Inspector(encoder or WordEncoder(), lambda: cards, random.Random(1))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (card("honest", "ab", ["a 1", "b 1", "a 2"]), 1.0),
        (card("by its description", "ab", ["a 1"], "b"), 1.0),
        (card("other domain", "ab", ["c", "d"]), 0.0),
        (card("half of it", "ab", ["a"]), 0.0),
        (card("no text", "ab", []), -1.0),
    ],
)
def test_agreement_is_that_of_the_worst_prototype(made: CapabilityCard, expected: float) -> None:
    async def main() -> None:
        one = inspector([made])
        assert one.honesty(made) == 1.0  # not looked at yet
        await one.look_at(made, WordEncoder())
        found = one.agreement(made)
        assert found == pytest.approx(expected, abs=1e-3)
        assert one.is_lying(made) == (expected < BORNE_OUT)
        assert one.honesty(made) == (1.0 if expected == 1.0 else TRUST_IN_LIES)

    run_virtual(main())


def test_prototypes_of_another_size_do_not_count() -> None:
    odd = card("odd", "a", ["a"])
    zero = Prototype(b"\1\1", 0.1)
    assert agreement(odd, [AXES[0][:2]]) == 1.0
    assert agreement(CapabilityCard("p", "s", 1, 1, "x", "", "", "", 9), [AXES[0]]) == 1.0
    mixed = CapabilityCard("p", "s", 1, 1, "x", "", "", "", 9, prototypes=(zero, *odd.prototypes))
    assert agreement(mixed, [AXES[1]]) == pytest.approx(0.0)


def test_the_same_content_is_looked_at_once_whoever_publishes_it() -> None:
    first = card("one", "a", ["c"])
    again = card("one", "a", ["c"], sequence=2)
    copy = card("two", "a", ["c"])
    changed = card("one", "a", ["a"], sequence=3)

    async def main() -> None:
        one = inspector([again, copy])
        await one.look_at(first, WordEncoder())
        assert [one.is_lying(known) for known in (first, again, copy)] == [True] * 3
        assert not one.is_lying(changed)
        assert one.agreement(changed) is None
        assert one.honesty(copy) == 1.0
        assert one.next() is None  # goes through all, and finds that the copy is known
        assert [one.honesty(known) for known in (again, copy)] == [TRUST_IN_LIES] * 2
        assert one.honesty(changed) == 1.0

    run_virtual(main())


def test_all_are_looked_at_at_a_pace_and_those_that_matter_first() -> None:
    cards = [card(f"c{number}", "a", ["a", f"a {number}"]) for number in range(20)]
    foreign = CapabilityCard("p", "s", 1, 1e10, "f", "", "", "", 9, encoder="other")
    encoder = WordEncoder()
    one = inspector([*cards, foreign], encoder)

    async def main() -> None:
        one.soon(cards[17])
        one.soon(foreign)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(one.run())
            await asyncio.sleep(60)
            task.cancel()

    run_virtual(main())
    assert encoder.encoded[1][1] == "a 17"
    assert len(encoder.encoded) == 40
    times = [at for at, _ in encoder.encoded]
    pace = InspectionSettings().encodings_per_second
    for start in range(int(times[0]), int(times[-1])):
        assert sum(start <= at < start + 1 for at in times) <= pace
    assert all(one.agreement(known) == pytest.approx(1.0, abs=1e-3) for known in cards)
    assert one.next() is None


def test_an_encoder_that_fails_is_tried_again_later() -> None:
    class Broken(WordEncoder):
        async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if not self.encoded:
                self.encoded.append((0.0, ""))
                raise ModelFileError("damaged")
            return await super().encode(texts)

    made = card("one", "a", ["c"])
    one = inspector([made], Broken())

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(one.run())
            await asyncio.sleep(30)
            task.cancel()

    run_virtual(main())
    assert one.is_lying(made)


@pytest.mark.parametrize("fault", [IndexError("a defect"), Unsupported("a panic, contained")])
def test_a_text_that_a_library_chokes_on_ends_nothing(fault: Exception) -> None:
    class Choking(WordEncoder):
        async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if texts[0] == "c":
                raise fault
            return await super().encode(texts)

    made, good = card("one", "a", ["c"]), card("two", "a", ["a"])
    one = inspector([made, good], Choking())

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(one.run())
            await asyncio.sleep(60)
            task.cancel()

    run_virtual(main())
    assert one.is_lying(made)
    assert one.agreement(good) == pytest.approx(1.0, abs=1e-3)


def test_without_an_encoder_nothing_is_done() -> None:
    made = card("one", "a", ["c"])
    one = Inspector(None, lambda: [made], random.Random(1))
    run_virtual(one.run())
    one.soon(made)
    assert one.agreement(made) is None


def test_what_was_looked_at_is_learnt_and_lies_are_not() -> None:
    learnt: list[str] = []

    async def learn(cards: Sequence[CapabilityCard]) -> None:
        learnt.extend(card.specialist for card in cards)

    async def main() -> None:
        one = Inspector(WordEncoder(), tuple, random.Random(1), learn=learn)
        for made in (card("honest", "a", ["a"]), card("liar", "a", ["b"])):
            await one.look_at(made, WordEncoder())

    run_virtual(main())
    assert learnt == ["honest"]
