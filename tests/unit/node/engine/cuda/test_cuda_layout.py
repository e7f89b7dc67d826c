"""What the GPU is told of a step, without a GPU: the table of numbers and the block tables."""

import random
from dataclasses import replace

import pytest
import torch

from node.engine.batch import CPU, Chunk, build_batch
from node.engine.cuda.columns import (
    BLOCK_COUNT,
    BLOCK_FIRST,
    BLOCK_TABLE,
    LOGIT_ROW,
    POSITION,
    SLOT,
    TOKEN,
)
from node.engine.cuda.layout import (
    LADDER,
    TOKENS_MAX,
    PageTables,
    StepShape,
    StepTable,
    blocks_for,
    rung,
)
from node.engine.pages import PAGE_SIZE, pages_for

PAGES = 400
SPAN = 16


def table(rows: int = 64, width: int = 100) -> tuple[StepTable, PageTables]:
    tables = PageTables(rows, width, PAGES, CPU)
    return StepTable(tables, 61, CPU), tables


def sent(step: StepTable, tables: PageTables, chunks: list[Chunk]) -> StepShape:
    shape = step.write(chunks, SPAN)
    assert shape is not None
    tables.send()
    step.send(shape.tokens)
    return shape


def random_chunks(rng: random.Random, count: int, most: int) -> list[Chunk]:
    free = rng.sample(range(PAGES), PAGES)
    chunks = []
    for _ in range(count):
        position, tokens = rng.randrange(40), rng.randint(1, most)
        pages = [free.pop() for _ in range(pages_for(position + tokens))]
        logits = rng.randint(0, tokens)
        chunks.append(Chunk([rng.randrange(61) for _ in range(tokens)], position, pages, logits))
    return chunks


@pytest.mark.parametrize("size", range(1, 65))
def test_a_step_is_filled_up_to_the_next_size_of_the_ladder(size: int) -> None:
    assert size <= rung(size) in LADDER
    assert all(one < size for one in LADDER if one < rung(size))


@pytest.mark.parametrize("most", [1, 4, 5, 40])
def test_the_table_says_of_each_token_what_the_batch_says(most: int) -> None:
    rng = random.Random(most)
    step, tables = table()
    for _ in range(20):
        chunks = random_chunks(rng, rng.randint(1, 20), most)
        shape = sent(step, tables, chunks)
        batch = build_batch(chunks, torch.float32)
        count = len(batch.token_ids)
        numbers = step.device
        assert numbers[:count, TOKEN].tolist() == batch.token_ids.tolist()
        assert numbers[:count, POSITION].tolist() == batch.positions.tolist()
        assert numbers[:count, SLOT].tolist() == batch.slots.tolist()
        assert shape.tokens == rung(count)
        assert set(numbers[count : shape.tokens, SLOT].tolist()) <= {-1}
        assert set(numbers[count : shape.tokens, TOKEN].tolist()) <= {0}
        assert shape.logits == len(batch.logit_rows)
        assert numbers[: shape.logits, LOGIT_ROW].tolist() == batch.logit_rows.tolist()
        check_blocks(shape, step, tables, chunks)


def check_blocks(
    shape: StepShape, step: StepTable, tables: PageTables, chunks: list[Chunk]
) -> None:
    """Blocks cover each token once, by the pages of its own sequence, and no padding."""
    owners = [chunk for chunk in chunks for _ in chunk.token_ids]
    covered = []
    for block in range(min(shape.blocks, shape.tokens)):
        first = int(step.device[block, BLOCK_FIRST])
        count = int(step.device[block, BLOCK_COUNT])
        assert count <= shape.span
        row = tables.device[int(step.device[block, BLOCK_TABLE])].tolist()
        for token in range(first, first + count):
            covered.append(token)
            assert row[: len(owners[token].pages)] == list(owners[token].pages)
    assert covered == list(range(len(owners)))
    assert shape.blocks >= blocks_for(shape.tokens, shape.span) or shape.span == 1


def test_short_chunks_are_attended_for_token_by_token() -> None:
    step, _ = table()
    pages = list(range(10))
    few = step.write([Chunk([1, 2, 3, 4], 0, pages, 4)], SPAN)
    many = step.write([Chunk([1, 2, 3, 4, 5], 0, pages, 5)], SPAN)
    assert few is not None
    assert many is not None
    assert (few.span, many.span) == (1, SPAN)


def test_a_row_of_an_earlier_longer_step_is_not_left_over() -> None:
    step, tables = table()
    sent(step, tables, [Chunk([5] * 8, 0, [1], 8)])
    shape = sent(step, tables, [Chunk([6, 6, 6], 0, [2], 1)])
    assert shape == StepShape(4, 4, 1, 1)
    assert step.device[3, [TOKEN, POSITION, SLOT, BLOCK_COUNT]].tolist() == [0, 0, -1, 0]


def test_a_step_can_be_cleared() -> None:
    step, tables = table()
    sent(step, tables, [Chunk([5] * 8, 0, [1], 8)])
    step.clear(8)
    step.send(8)
    assert step.device[:8, BLOCK_COUNT].tolist() == [0] * 8
    assert step.device[:8, SLOT].tolist() == [-1] * 8


def test_a_sequence_keeps_its_row_while_it_grows_and_is_sent_only_when_it_has() -> None:
    tables = PageTables(2, 8, PAGES, CPU)
    mine, other = [3, 4], [9]
    row = tables.row(mine)
    tables.send()
    assert tables.row(other) != row
    tables.send()
    tables.device.fill_(77)
    assert tables.row(mine) == row
    tables.send()
    assert tables.device.eq(77).all()
    mine.append(5)
    assert tables.row(mine) == row
    tables.send()
    assert tables.device[row, :3].tolist() == [3, 4, 5]


def test_the_row_used_longest_ago_goes_to_a_new_sequence() -> None:
    tables = PageTables(2, 8, PAGES, CPU)
    sequences = [[1], [2], [3]]
    first, second = tables.row(sequences[0]), tables.row(sequences[1])
    assert tables.row(sequences[0]) == first
    assert tables.row(sequences[2]) == second
    tables.send()
    assert tables.device[second, 0] == 3
    assert tables.row(sequences[0]) == first


def test_what_does_not_fit_the_tables_is_not_taken() -> None:
    step, _ = table(rows=2, width=4)
    chunk = Chunk([1], 0, [0], 1)
    assert step.write([chunk] * 3, SPAN) is None
    assert step.write([Chunk([1], 64, list(range(5)), 1)], SPAN) is None
    assert step.write([Chunk([1] * (TOKENS_MAX + 1), 0, list(range(200)), 1)], SPAN) is None
    assert step.write([chunk, replace(chunk, pages=[1])], SPAN) is not None


@pytest.mark.parametrize(
    ("chunk", "told"),
    [
        (Chunk([61], 0, [0], 1), "vocabulary"),
        (Chunk([-1], 0, [0], 1), "vocabulary"),
        (Chunk([1], 0, [PAGES], 1), f"{PAGES} pages"),
        (Chunk([1], 0, [-1], 1), f"{PAGES} pages"),
    ],
)
def test_the_gpu_is_told_of_nothing_outside(chunk: Chunk, told: str) -> None:
    step, _ = table()
    with pytest.raises(ValueError, match=told):
        step.write([chunk], SPAN)


@pytest.mark.parametrize("size", LADDER)
def test_blocks_of_a_step_fit_the_table(size: int) -> None:
    assert blocks_for(size, 1) == size
    assert blocks_for(size, SPAN) <= size
    assert blocks_for(size, SPAN) * SPAN >= size
    assert blocks_for(size, SPAN) >= pages_for(size) // PAGE_SIZE
