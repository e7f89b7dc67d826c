"""Grouping rows by adapter is only arithmetic: any mixture, against one row at a time."""

import random
from typing import get_args

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from node.engine.adapters.plan import AdapterPlan, Unadapted
from node.engine.adapters.registry import BASE, AdapterSet
from node.engine.adapters.weights import PRODUCTS, Adapter, ProductName
from node.engine.batch import Chunk, adapter_column
from tests.effort import examples
from tests.unit.node.engine.adapters.adapter_referee import random_adapter
from tests.unit.node.engine.conftest import TINY

SHARED = [random_adapter(TINY, seed, shared_a=99) for seed in range(4)]
OWN = [random_adapter(TINY, seed) for seed in range(10, 14)]
ODD = [
    random_adapter(TINY, 20, rank=1, parts=("key", "up")),
    random_adapter(TINY, 21, rank=7, parts=("query", "key", "gate")),
    random_adapter(TINY, 22, parts=("down",), shared_a=99),
]
EVERY = [*SHARED, *OWN, *ODD]


def loaded_set(order: list[Adapter]) -> tuple[AdapterSet, dict[int, Adapter]]:
    adapters = AdapterSet(TINY, torch.float32)
    for adapter in order:
        adapters.load(adapter)
    return adapters, {adapters.acquire(one.digest): one for one in order}


def by_row(adapter: Adapter | None, layer: int, product: ProductName, row: Tensor) -> Tensor:
    """What one row gets, by the definition."""
    shapes = TINY.tensor_shapes()
    parts = []
    for part in PRODUCTS[product]:
        out, _ = shapes[f"layers.{layer}.{part}"]
        pair = adapter.parts.get((layer, part)) if adapter else None
        parts.append(torch.zeros(out) if pair is None else pair.delta() @ row)
    return torch.cat(parts)


@settings(max_examples=examples(300), deadline=None)
@given(
    rows=st.lists(st.integers(-1, len(EVERY) - 1), min_size=1, max_size=40),
    is_sorted=st.booleans(),
    gone=st.sets(st.integers(0, len(EVERY) - 1), max_size=5),
    seed=st.integers(0, 2**20),
)
def test_any_mixture_is_what_each_row_gets_alone(
    rows: list[int], is_sorted: bool, gone: set[int], seed: int
) -> None:
    order = list(EVERY)
    random.Random(seed).shuffle(order)
    adapters, by_handle = loaded_set(order)
    for index in gone - set(rows):  # holes among the slots
        handle = next(key for key, one in by_handle.items() if one is EVERY[index])
        adapters.unload(EVERY[index].digest)
        adapters.release(handle)
    handles = {id(one): handle for handle, one in by_handle.items()}
    column = [BASE if row < 0 else handles[id(EVERY[row])] for row in rows]
    if is_sorted:
        column.sort(key=adapters.order)
    plan = adapters.plan(column) or Unadapted()
    generator = torch.Generator().manual_seed(seed)
    for layer, product in ((0, name) for name in get_args(ProductName)):
        first = TINY.tensor_shapes()[f"layers.{layer}.{PRODUCTS[product][0]}"]
        inputs = torch.randn(len(rows), first[1], generator=generator)
        wanted = torch.stack(
            [
                by_row(by_handle.get(handle), layer, product, row)
                for handle, row in zip(column, inputs, strict=True)
            ]
        )
        before = torch.randn(wanted.shape, generator=generator)
        result = before.clone()
        plan.add(layer, product, inputs, result)
        torch.testing.assert_close(result, before + wanted, rtol=1e-4, atol=1e-5)
        is_base = torch.tensor([handle == BASE for handle in column])
        assert torch.equal(result[is_base], before[is_base])


def plan_of(counts: list[int], order: list[Adapter]) -> AdapterPlan:
    adapters, by_handle = loaded_set(order)
    column = [handle for handle, count in zip(by_handle, counts, strict=True) for _ in range(count)]
    plan = adapters.plan(column)
    assert plan is not None
    return plan


def test_a_shared_a_is_held_once_and_computed_once() -> None:
    adapters, _ = loaded_set(SHARED)
    (plan,) = plan_of([4, 4, 4, 4], SHARED).plans
    assert [(run.slots, run.lanes) for run in plan.a_runs] == [(1, 16)]
    assert [(run.slots, run.lanes) for run in plan.b_runs] == [(4, 4)]
    assert plan.lanes.window == slice(0, 16)
    alone, _ = loaded_set(SHARED[:1])
    b_size = 4 * sum(pair.scaled_b().numel() for pair in SHARED[1].parts.values())
    assert adapters.size == alone.size + 3 * b_size


def test_equal_numbers_of_rows_are_one_batched_product() -> None:
    (plan,) = plan_of([4, 4, 4, 4], OWN).plans
    assert [(run.slots, run.lanes) for run in plan.a_runs] == [(4, 4)]
    assert [(run.slots, run.lanes) for run in plan.b_runs] == [(4, 4)]


def test_nearly_equal_numbers_are_padded_and_a_long_prompt_stays_alone() -> None:
    (plan,) = plan_of([3, 4, 2, 100], OWN).plans
    assert [(run.slots, run.lanes) for run in plan.b_runs] == [(3, 4), (1, 100)]
    assert plan.lanes.real is not None
    assert len(plan.lanes.real) == 109
    assert len(plan.lanes.gather) == 112


def test_without_adapters_there_is_no_plan() -> None:
    adapters, _ = loaded_set(OWN)
    assert adapters.plan([BASE, BASE]) is None


@pytest.mark.parametrize(
    ("position", "count", "start", "wanted"),
    [(0, 4, 0, [5, 5, 5, 5]), (0, 4, 2, [-1, -1, 5, 5]), (4, 2, 6, [-1, -1]), (9, 2, 6, [5, 5])],
)
def test_an_activated_adapter_has_its_tokens_from_its_beginning_on(
    position: int, count: int, start: int, wanted: list[int]
) -> None:
    chunk = Chunk([7] * count, position, [0], logits=1, adapter=5, adapter_from=start)
    base = Chunk([1, 2], 0, [1], logits=1)
    assert adapter_column([base, chunk]) == [-1, -1, *wanted]
