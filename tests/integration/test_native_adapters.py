"""Adapters in the compiled step: near the referee, and the same whatever else is in the batch."""

import pytest
import torch
from torch import Tensor

from node.engine.adapters.registry import AdapterSet
from node.engine.adapters.weights import Adapter
from node.engine.batch import Chunk, adapter_column, build_batch
from node.engine.cache import KeyValueCache
from node.engine.config import LlamaConfig
from node.engine.native.library import NativeLibrary
from node.engine.native.model import NativeRunner
from node.engine.weights.scheme import Precision
from tests.effort import few
from tests.integration.native_models import (
    PAGES,
    POSITIONS,
    config_of,
    native,
    referee,
    tokens_of,
)
from tests.unit.node.engine.adapters.adapter_referee import random_adapter

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]

CONFIG: LlamaConfig = config_of(6, 2, 32)
ADAPTERS = (
    random_adapter(CONFIG, 1, rank=16),
    random_adapter(CONFIG, 2, rank=16),
    random_adapter(CONFIG, 3, rank=32, shared_a=7),
    random_adapter(CONFIG, 4, rank=32, shared_a=7, is_int8=True),
    random_adapter(CONFIG, 5, rank=5, parts=("query", "value", "down")),
)
ERROR: dict[Precision, float] = {"int4": 0.02, "int8": 0.02, "bf16": 0.0125}
"""Of a single row, as a share of its length and of what the adapter changed: these adapters change
more than there was, and what goes into theirs is off as what goes into other products."""
POSITION = 40
"""From where an activated adapter applies."""


def loaded(dtype: torch.dtype, adapters: tuple[Adapter, ...] = ADAPTERS) -> AdapterSet:
    made = AdapterSet(CONFIG, dtype)
    for adapter in adapters:
        made.load(adapter)
    return made


def batch_of(handles: list[int], step: int = 0) -> list[Chunk]:
    """A prompt for each adapter, the second applied from `POSITION` on; then single tokens."""
    chunks = []
    for number, handle in enumerate(handles):
        ids = tokens_of(CONFIG, 60 + number, seed=number)
        part, position = ([ids[-1]], len(ids)) if step else (ids, 0)
        pages = range(number * PAGES, (number + 1) * PAGES)
        start = POSITION if number == 1 else 0
        chunks.append(Chunk(part, position, pages, 1, adapter=handle, adapter_from=start))
    return chunks


def run_native(runner: NativeRunner, adapters: AdapterSet, chunks: list[Chunk]) -> Tensor:
    return runner.run(chunks, adapters.plan(adapter_column(chunks)))


def handles_of(adapters: AdapterSet) -> list[int]:
    """One of each, and the base."""
    return [*(adapters.acquire(adapter.digest) for adapter in ADAPTERS), -1]


@pytest.mark.parametrize("precision", few(["int4", "int8", "bf16"], 2))
def test_logits_are_near_the_referees(library: NativeLibrary, precision: Precision) -> None:
    room = (len(ADAPTERS) + 1) * PAGES * 16
    exact, judge = loaded(torch.float32), referee(CONFIG, precision)
    cache = KeyValueCache(CONFIG, room, torch.float32)
    runner, adapters = native(library, CONFIG, precision).open(room), loaded(torch.bfloat16)
    plain = native(library, CONFIG, precision).open(room)
    for step in range(2):
        ours = batch_of(handles_of(adapters), step)
        got = run_native(runner, adapters, ours)
        theirs = batch_of(handles_of(exact), step)
        batch = build_batch(theirs, torch.float32)
        wanted = judge.forward(batch, cache, exact.plan(adapter_column(theirs)))
        without = plain.run(ours)
        for row in range(len(ADAPTERS) + 1):
            error = float((got[row] - wanted[row]).norm() / wanted[row].norm())
            changed = float((without[row] - wanted[row]).norm() / wanted[row].norm())
            print(f"{precision}, row {row}: error {error:.4f}, without {changed:.4f}")  # noqa: T201
            assert error < ERROR[precision] * (1 + changed)
            assert (changed > 5 * ERROR[precision]) == (row < len(ADAPTERS))
        assert torch.equal(got[-1], without[-1])
    runner.close()
    plain.close()


def test_a_row_depends_on_its_own_adapter_and_nothing_else(library: NativeLibrary) -> None:
    """To the bit: alone, in another order, with another number of threads, after an unloading."""
    room = (len(ADAPTERS) + 1) * PAGES * 16
    adapters = loaded(torch.bfloat16)
    handles = handles_of(adapters)
    runner = native(library, CONFIG, "int4").open(room)
    wanted = run_native(runner, adapters, batch_of(handles))
    chunks = batch_of(handles)
    for row, chunk in enumerate(chunks):
        assert torch.equal(run_native(runner, adapters, [chunk])[0], wanted[row])
    backwards = run_native(runner, adapters, chunks[::-1])
    assert torch.equal(backwards.flip(0), wanted)
    for threads in (1, 3):
        other = native(library, CONFIG, "int4", threads=threads).open(room)
        assert torch.equal(run_native(other, adapters, chunks), wanted)
        other.close()
    for number, adapter in enumerate(ADAPTERS[:-1]):
        adapters.unload(adapter.digest)
        adapters.release(handles[number])
    last = len(ADAPTERS) - 1
    assert torch.equal(run_native(runner, adapters, [chunks[last]])[0], wanted[last])
    adapters.load(ADAPTERS[2])
    again = batch_of([adapters.acquire(ADAPTERS[2].digest)] * 3)[2]
    assert torch.equal(run_native(runner, adapters, [again])[0], wanted[2])
    runner.close()


def test_two_rows_of_one_adapter_in_parts(library: NativeLibrary) -> None:
    """More rows than are summed together, cut anywhere."""
    assert POSITIONS >= 300
    adapters = loaded(torch.bfloat16)
    handle = adapters.acquire(ADAPTERS[3].digest)
    runner = native(library, CONFIG, "bf16").open(2 * POSITIONS)
    ids, pages = tokens_of(CONFIG, 300), range(PAGES)
    whole = run_native(runner, adapters, [Chunk(ids, 0, pages, 1, adapter=handle)])
    done, parts = 0, whole
    for count in (1, 7, 9, 200, 83):
        part = Chunk(ids[done : done + count], done, pages, 1, adapter=handle)
        parts = run_native(runner, adapters, [part])
        done += count
    assert done == 300
    assert torch.equal(parts, whole)
    runner.close()
