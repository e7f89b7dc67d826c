"""The figures that benchmarks make of repeated runs."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samples import alternate, median_ratio, percentile, spread

POSITIVE = st.floats(min_value=1e-3, max_value=1e6)


def test_ways_take_turns_and_every_other_round_goes_backwards() -> None:
    order: list[str] = []

    def way(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = alternate({"a": lambda: way("a"), "b": lambda: way("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_a_machine_that_slows_down_favours_neither_of_two_equal_ways() -> None:
    clock = iter(range(100, 0, -1))
    found = alternate({"a": lambda: next(clock), "b": lambda: next(clock)}, 4)
    assert sum(found["a"]) == sum(found["b"])


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=9), POSITIVE)
def test_a_drift_that_hits_both_leaves_the_ratio_alone(
    pairs: list[tuple[float, float]], factor: float
) -> None:
    ours, theirs = zip(*pairs, strict=True)
    slower = [value * factor**number for number, value in enumerate(ours)]
    also_slower = [value * factor**number for number, value in enumerate(theirs)]
    expected = median_ratio(ours, theirs)
    if all(1e-250 < value < 1e250 for value in (*slower, *also_slower)):
        assert median_ratio(slower, also_slower) == pytest.approx(expected)


def test_the_ratio_is_of_rounds_and_not_of_medians() -> None:
    ours, theirs = [10.0, 100.0, 40.0], [5.0, 50.0, 10.0]
    assert median_ratio(ours, theirs) == 2
    assert statistics.median(ours) / statistics.median(theirs) == 4


def test_rounds_that_do_not_belong_together_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="shorter"):
        median_ratio([1.0, 2.0], [1.0])


def test_the_spread_is_that_of_the_extremes() -> None:
    assert spread([8.0, 10.0, 14.0]) == 0.6
    assert spread([3.0]) == 0
    assert spread([0.0, 0.0, 1.0]) == math.inf


@given(st.lists(POSITIVE, min_size=1, max_size=40), st.floats(min_value=0.01, max_value=1))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_p95_of_twenty_is_the_nineteenth_and_of_sixteen_the_last() -> None:
    assert percentile([float(value) for value in range(20, 0, -1)], 0.95) == 19
    assert percentile([float(value) for value in range(16)], 0.95) == 15


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_there_is_no_percentile_of_nothing(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, share)
