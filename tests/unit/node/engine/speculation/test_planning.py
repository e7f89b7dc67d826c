"""What drafts are worth: acceptance, costs and the plan that weighs them."""

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from node.engine.speculation.acceptance import Acceptance
from node.engine.speculation.costs import StepCosts, bucket_of
from node.engine.speculation.drafts import DRAFTED_MAX, Draft, Text, Wish
from node.engine.speculation.plan import Offer, spread
from node.engine.speculation.speculator import Speculator
from tests.effort import examples
from tests.unit.node.engine.speculation.texts import Plain


def free(_rows: int) -> float:
    return 1.0


def by_the_row(rows: int) -> float:
    return float(rows)


def test_rows_that_cost_nothing_are_all_used_and_rows_that_cost_a_step_are_not() -> None:
    assert spread([Offer(0.7, 7)], 1, 20, free) == [7]
    assert spread([Offer(0.7, 7)], 1, 5, free) == [5]
    assert spread([Offer(0.99, 7)], 1, 20, by_the_row) == [0]


def test_the_surest_drafts_come_first_and_a_step_with_many_rows_needs_none() -> None:
    def seconds(rows: int) -> float:
        """A product that is as dear for eight rows as for one, then by the row."""
        return max(8.0, rows)

    assert spread([Offer(0.9, 9), Offer(0.2, 9)], 2, 60, seconds) == [6, 0]
    assert spread([Offer(0.9, 9)] * 8, 8, 60, seconds) == [0] * 8


def test_a_dear_second_row_is_jumped_over_if_more_rows_cost_no_more() -> None:
    assert spread([Offer(0.9, 7)], 1, 7, lambda rows: 1.0 if rows == 1 else 1.95) == [7]
    assert spread([Offer(0.9, 1)], 1, 7, lambda rows: 1.0 if rows == 1 else 1.95) == [0]


@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 0.99), st.integers(0, 15)), min_size=1, max_size=6),
    st.integers(1, 30),
    st.lists(st.floats(0.1, 3.0), min_size=40, max_size=40),
)
def test_a_plan_is_as_good_as_any_number_of_the_likeliest_tokens(
    offered: list[tuple[float, int]], spare: int, steps: list[float]
) -> None:
    offers = [Offer(*one) for one in offered]
    rows = len(offers)

    def seconds(count: int) -> float:
        return sum(steps[:count])

    lengths = spread(offers, rows, spare, seconds)
    assert all(0 <= n <= offer.length for n, offer in zip(lengths, offers, strict=True))
    assert sum(lengths) <= spare
    values = sorted((o.chance**d for o in offers for d in range(1, o.length + 1)), reverse=True)
    rates = [
        (rows + sum(values[:n])) / seconds(rows + n) for n in range(min(spare, len(values)) + 1)
    ]
    got = rates[sum(lengths)]
    assert got >= max(rates) * 0.97 or (not sum(lengths) and max(rates) <= rates[0] * 1.05)


def test_costs_are_read_off_between_figures_and_carried_on_beyond_them() -> None:
    costs = StepCosts()
    assert costs.seconds(1) is None
    costs.learn(1, 10.0)
    assert costs.seconds(1) == 10.0
    assert costs.seconds(5) == pytest.approx(11.6)
    costs.learn(9, 18.0)
    assert costs.seconds(5) == pytest.approx(14.0)
    assert costs.seconds(17) == pytest.approx(26.0)
    assert (costs.seconds(30) or 0.0) > 30.0


def test_a_disturbed_step_does_not_spoil_a_figure() -> None:
    costs = StepCosts()
    for seconds in (50.0, 10.0):
        costs.learn(4, seconds)
    assert costs.seconds(4) == 10.0
    for seconds in (10.0, 10.0, 10.0, 90.0, 80.0):
        costs.learn(4, seconds)
    assert costs.seconds(4) == 10.0


def test_a_machine_that_became_slower_is_noticed() -> None:
    costs = StepCosts()
    for seconds in [10.0] * 9 + [20.0] * 3:
        costs.learn(1, seconds)
    assert costs.seconds(1) == 20.0


def test_a_figure_that_was_never_renewed_is_forgotten() -> None:
    costs = StepCosts()
    costs.learn(8, 900.0)
    for _ in range(200):
        costs.learn(1, 10.0)
    assert (costs.seconds(8) or 900.0) < 20.0
    for _ in range(1000):
        costs.learn(1, 10.0)
    assert costs.seconds(1) == 10.0


def test_buckets_never_fall_and_are_never_far_off() -> None:
    buckets = [bucket_of(rows) for rows in range(1, 300)]
    assert buckets == sorted(buckets)
    assert all(rows <= bucket <= rows * 1.25 for rows, bucket in enumerate(buckets, 1))


def test_acceptance_starts_at_the_prior_and_follows_the_evidence() -> None:
    acceptance = Acceptance()
    draft = Draft([1, 2, 3], "k", 0.5)
    assert acceptance.chance("k", 0.5, 0) == 0.5
    for now in range(1, 20):
        acceptance.observe(draft, [1, 2, 3], now)
    assert acceptance.chance("k", 0.5, 20) > 0.9
    assert acceptance.chance("other", 0.5, 20) == 0.5
    for now in range(20, 40):
        acceptance.observe(draft, [9], now)
    assert acceptance.chance("k", 0.5, 40) < 0.5
    assert acceptance.chance("k", 0.5, 600) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("came", "right", "tried"),
    [([1, 2, 3, 4], 3, 3), ([1, 2], 2, 2), ([1, 9, 3], 1, 2), ([9], 0, 1), ([], 0, 0)],
)
def test_what_follows_a_miss_says_nothing(came: list[int], right: int, tried: int) -> None:
    acceptance = Acceptance()
    acceptance.observe(Draft([1, 2, 3], "k", 0.5), came, 5)
    assert (acceptance._kinds["k"].right, acceptance._kinds["k"].tried) == (right, tried)


class Scripted:
    """Drafts the same tokens always; counts how often it was asked, and lets time pass."""

    def __init__(self, token_ids: Sequence[int], *, is_free: bool, seconds: float = 0.0) -> None:
        self.token_ids = token_ids
        self.is_free = is_free
        self.seconds = seconds
        self.now = 0.0
        self.asked: list[int] = []
        self.left: list[int] = []

    def propose(self, text: Text, most: int) -> Draft | None:  # noqa: ARG002
        self.asked.append(most)
        self.now += self.seconds * most
        return Draft(self.token_ids[:most], "scripted", 0.5)

    def leave(self, text: Text) -> None:
        self.left.append(text.ticket)


def speculator(drafter: Scripted, *, slope: float) -> Speculator:
    costs = StepCosts()
    for rows in range(1, 17):
        costs.learn(rows, 1.0 + slope * (rows - 1))
    return Speculator([drafter], costs, lambda: drafter.now)


def run(speculation: Speculator, coming: Sequence[Sequence[int]], most: int = 15) -> list[int]:
    """How many tokens were drafted before each of `coming`."""
    text = Plain([5])
    drafted = []
    for tokens in coming:
        (draft,) = speculation.plan([Wish(text, most)], 100)
        drafted.append(len(draft))
        text.tokens += tokens
        speculation.settle(text, len(tokens))
    return drafted


def test_a_draft_that_is_right_gets_longer_and_one_that_is_wrong_stops() -> None:
    right = run(speculator(Scripted([1] * 15, is_free=True), slope=0.1), [[1] * 5] * 9)
    assert right[0] < right[-1]
    assert right[-1] > 8
    wrong = run(speculator(Scripted([1] * 15, is_free=True), slope=0.1), [[9]] * 20)
    assert wrong[4:] == [0] * 16


def test_what_is_not_tried_is_judged_all_the_same_and_tried_when_it_becomes_right() -> None:
    drafted = run(speculator(Scripted([1] * 15, is_free=True), slope=0.2), [[9]] * 20 + [[1]] * 20)
    assert drafted[10:20] == [0] * 10
    assert drafted[-1] > 2


def test_no_more_is_drafted_than_wished_for() -> None:
    drafted = run(speculator(Scripted([1] * 15, is_free=True), slope=0.0), [[1]] * 5, most=2)
    assert drafted == [2] * 5
    assert run(speculator(Scripted([1] * 15, is_free=True), slope=0.0), [[1]], most=0) == [0]


def test_nothing_is_drafted_before_a_step_was_timed() -> None:
    drafter = Scripted([1] * 15, is_free=True)
    assert run(Speculator([drafter], StepCosts(), lambda: 0.0), [[1]] * 3) == [0] * 3


def test_a_drafter_whose_time_counts_is_asked_for_what_is_worth_it() -> None:
    quick = Scripted([1] * 15, is_free=False, seconds=0.01)
    assert run(speculator(quick, slope=0.05), [[1] * 6] * 12)[-1] > 4
    slow = Scripted([1] * 15, is_free=False, seconds=2.0)
    drafted = run(speculator(slow, slope=0.05), [[1] * 6] * 12)
    assert drafted[0] > 0, "what it costs is not known before"
    assert drafted[1:] == [0] * 11
    assert len(slow.asked) == 1


def test_a_text_that_ended_is_told_to_drafters_and_forgotten() -> None:
    drafter = Scripted([1] * DRAFTED_MAX, is_free=True)
    speculation = speculator(drafter, slope=0.1)
    text = Plain([5])
    speculation.plan([Wish(text, 5)], 9)
    speculation.leave(text)
    assert repr(speculation) == "<Speculator texts=0>"
    assert drafter.left == [1]
    speculation.settle(text, 1)
