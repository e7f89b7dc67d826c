"""Laws of the memory of chains: what is told fits, nothing exact is changed, prefixes are kept."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.chain.budget import seconds_for, tokens_for
from coordinator.chain.excerpt import LAST_SENTENCES, MARK, excerpt
from coordinator.chain.transcript import Said, Transcript, lineage, source
from coordinator.routing.plan import Plan, Step
from protocols.ids import SpecialistId
from protocols.messages.ask import Chat, ChatMessage
from tests.effort import examples

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
QUOTE = re.compile(r"\"[^\"\n]*\"")
sentences = st.one_of(
    st.lists(st.sampled_from(["so", "the", "dose", "law", "is"]), min_size=1, max_size=12).map(
        lambda words: " ".join(words) + ". "
    ),
    st.integers(0, 10**9).map(lambda number: f"It is {number / 100} mg. "),
    st.sampled_from(
        ['He said "no. Not me!" to her. ', "`x = 1. 2`\n", "```\na = 1\n\nb. c\n```\n"]
    ),
    st.text(max_size=30),
)
texts = st.lists(sentences, max_size=30).map("".join)


def is_subsequence(few: list[str], many: list[str]) -> bool:
    rest = iter(many)
    return all(any(one == other for other in rest) for one in few)


@settings(max_examples=examples(1_000), deadline=None)
@given(text=texts, most=st.integers(0, 700))
def test_an_excerpt_fits_and_changes_nothing(text: str, most: int) -> None:
    found = excerpt(text, most)
    if len(text) <= most:
        assert found == text
        return
    assert len(found) <= most
    pieces = [piece for piece in found.split(MARK) if piece]
    assert is_subsequence(NUMBER.findall(found), NUMBER.findall(text))
    at = 0
    for piece in pieces:  # in their order, each as it was
        at = text.index(piece, at) + len(piece)
    if "```" not in text and "`" not in text and text.count('"') % 2 == 0:
        assert is_subsequence(QUOTE.findall(found), QUOTE.findall(text))


@settings(max_examples=examples(300), deadline=None)
@given(
    numbers=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    padding=st.integers(5, 40),
)
def test_with_room_for_what_is_exact_all_of_it_is_kept(numbers: list[int], padding: int) -> None:
    exact = [f"The value is {number}. " for number in numbers]
    text = "".join(f"{'So we go on here. ' * padding}{one}" for one in exact) + "That is it. Done."
    most = sum(len(one) + len(MARK) for one in exact) + LAST_SENTENCES * 40
    found = excerpt(text, most)
    assert NUMBER.findall(found) == NUMBER.findall(text)
    assert found.endswith("That is it. Done.")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    steps = []
    for index in range(draw(st.integers(1, 6))):
        after = draw(st.sets(st.integers(0, index - 1), max_size=2)) if index else set()
        steps.append(Step(SpecialistId(f"s{index}"), f"do {index}", tuple(sorted(after))))
    return Plan("chain", tuple(steps), "")


@settings(max_examples=examples(1_000), deadline=None)
@given(plan=plans(), silent=st.sets(st.integers(0, 5)))
def test_each_step_begins_with_what_its_source_read(plan: Plan, silent: set[int]) -> None:
    """Then its source's answer, then its own prompt at the very end, and everybody it needs."""
    opening = (ChatMessage("system", "be brief"), ChatMessage("user", "all of it"))
    transcript = Transcript(Chat(opening), plan)
    for index, step in enumerate(plan.steps):
        mine = transcript.prompt_for(index).messages
        assert mine[0] == opening[0]
        assert mine[-1] == ChatMessage("user", step.prompt)
        told = {message.content for message in mine if message.role == "assistant"}
        wanted = {f"said {at}" for at in lineage(plan.steps, index)} - {
            f"said {at}" for at in silent
        }
        assert told == wanted
        assert [m.role for m in mine[1:]] == ["user", "assistant"] * (len(mine) // 2 - 1) + ["user"]
        main = source(plan.steps, index)
        if main is not None and main not in silent:
            before = transcript.prompt_for(main).messages
            assert mine[: len(before)] == before
            assert mine[len(before)] == ChatMessage("assistant", f"said {main}")
        if index not in silent:
            transcript = transcript.with_answer(Said(index, step.specialist, f"said {index}"))


@settings(max_examples=examples(300), deadline=None)
@given(
    plan=plans(), total=st.floats(0, 600), used=st.lists(st.floats(0, 1), min_size=6, max_size=6)
)
def test_shares_of_time_never_exceed_what_there_is(
    plan: Plan, total: float, used: list[float]
) -> None:
    """Whatever part of its share each step takes, the last one ends in time."""
    ends: dict[int, float] = {}
    for index, step in enumerate(plan.steps):
        begin = max((ends[at] for at in step.after), default=0.0)
        ended = {at for at, end in ends.items() if end <= begin}
        share = seconds_for(plan.steps, index, ended, total - begin)
        assert share >= 0
        ends[index] = begin + share * used[index]
        assert ends[index] <= total + 1e-6


@settings(max_examples=examples(500), deadline=None)
@given(total=st.integers(0, 1_000), used=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_shares_of_tokens_never_exceed_what_there_is(total: int, used: list[float]) -> None:
    left = total
    for at, part in enumerate(used):
        share = tokens_for(len(used) - at, left)
        assert 0 <= share <= left
        left -= int(share * part)
    assert tokens_for(1, left) == left  # what is left over passes on
