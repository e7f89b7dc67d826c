"""Attention of a flat batch over paged keys and values, in Triton.

Knows tensors in memory; must not know layers, requests or graphs. Query heads that share a
key-value head are rows of one tile, so that every key is read once for all of them.
"""

import triton
import triton.language as tl

from node.engine.cuda.columns import (
    BLOCK_COUNT,
    BLOCK_FIRST,
    BLOCK_TABLE,
    COLUMNS,
    POSITION,
)
from node.engine.cuda.products import begin, wait
from node.engine.pages import PAGE_SIZE

_COLUMNS = tl.constexpr(COLUMNS)
_POSITION = tl.constexpr(POSITION)
_BLOCK_FIRST = tl.constexpr(BLOCK_FIRST)
_BLOCK_COUNT = tl.constexpr(BLOCK_COUNT)
_BLOCK_TABLE = tl.constexpr(BLOCK_TABLE)
_PAGE = tl.constexpr(PAGE_SIZE)


@triton.jit
def _read(
    query, position, table, keys, values, base, start_at, stop, scale,
    DIMENSION: tl.constexpr, ROWS: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Of rows that see positions from `start_at` to before `stop`, up to their own.

    Weighted sums of values, sums of weights, and the largest score, to which weights are relative.
    """
    depth = tl.arange(0, DIMENSION)
    largest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    sums = tl.zeros((ROWS, DIMENSION), dtype=tl.float32)
    for start in range(start_at, stop, BN):
        at = start + tl.arange(0, BN)
        is_there = at < stop
        page = tl.load(table + at // _PAGE, mask=is_there, other=0).to(tl.int64)
        slot = (base + page * _PAGE + at % _PAGE) * DIMENSION
        key = tl.load(keys + slot[None, :] + depth[:, None], mask=is_there[None, :], other=0.0)
        scores = tl.dot(query, key, input_precision="ieee") * scale
        is_seen = is_there[None, :] & (at[None, :] <= position[:, None])
        scores = tl.where(is_seen, scores, float("-inf"))
        now = tl.maximum(largest, tl.max(scores, 1))
        # A row that has seen nothing yet: minus infinity from minus infinity is not a number.
        level = tl.where(now == float("-inf"), 0.0, now)
        weights = tl.exp(scores - level[:, None])
        fade = tl.exp(largest - level)
        total = total * fade + tl.sum(weights, 1)
        value = tl.load(values + slot[:, None] + depth[None, :], mask=is_there[:, None], other=0.0)
        sums = tl.dot(weights.to(value.dtype), value, sums * fade[:, None], input_precision="ieee")
        largest = now
    return sums, total, largest


@triton.jit(do_not_specialize=["tokens"])
def attend(
    numbers, tables, queries, keys, values, result, partial, largest_of, total_of, tokens,
    capacity, table_width, scale,
    HEADS: tl.constexpr, DIMENSION: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr,
    ROWS: tl.constexpr, BN: tl.constexpr, SPLITS: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    """One block of a sequence's tokens against one of `SPLITS` parts of what it sees, for one head.

    A token sees all positions up to its own. `tables` is `[rows, table_width]`; `queries` and
    `result` are `[tokens, HEADS, DIMENSION]`. With several parts, `partial`
    [SPLITS, tokens, HEADS, DIMENSION], `largest_of` and `total_of` [SPLITS, tokens, HEADS] are
    written instead of `result`, for `combine`. A block that counts no tokens writes nothing.
    """
    begin(OVERLAPS)
    wait(OVERLAPS)
    block = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    first = tl.load(numbers + block * _COLUMNS + _BLOCK_FIRST)
    count = tl.load(numbers + block * _COLUMNS + _BLOCK_COUNT)
    table = tables + tl.load(numbers + block * _COLUMNS + _BLOCK_TABLE).to(tl.int64) * table_width
    row = tl.arange(0, ROWS)
    token = first + row // GROUP_PADDED
    head = kv_head * GROUP + row % GROUP_PADDED
    is_row = (row // GROUP_PADDED < count) & (row % GROUP_PADDED < GROUP)
    depth = tl.arange(0, DIMENSION)
    mine = (token.to(tl.int64) * HEADS + head)[:, None] * DIMENSION + depth[None, :]
    query = tl.load(queries + mine, mask=is_row[:, None], other=0.0)
    position = tl.load(numbers + token * _COLUMNS + _POSITION, mask=is_row, other=-1)
    seen = tl.max(position, 0) + 1
    part = tl.cdiv(tl.cdiv(seen, SPLITS), BN) * BN
    stop = tl.minimum(split * part + part, seen)
    base = kv_head * capacity.to(tl.int64)
    sums, total, largest = _read(
        query, position, table, keys, values, base, split * part, stop, scale, DIMENSION, ROWS, BN
    )
    if SPLITS == 1:
        sums = sums / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(result + mine, sums.to(result.dtype.element_ty), mask=is_row[:, None])
    else:
        plane = split.to(tl.int64) * tokens * HEADS
        tl.store(partial + plane * DIMENSION + mine, sums, mask=is_row[:, None])
        tl.store(largest_of + plane + token * HEADS + head, largest, mask=is_row)
        tl.store(total_of + plane + token * HEADS + head, total, mask=is_row)


@triton.jit(do_not_specialize=["tokens"])
def combine(
    partial, largest_of, total_of, result, tokens,
    HEADS: tl.constexpr, DIMENSION: tl.constexpr, SPLITS: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    """The parts of `attend`, weighted, as one: `result` [tokens, HEADS, DIMENSION]."""
    begin(OVERLAPS)
    wait(OVERLAPS)
    mine = tl.program_id(0).to(tl.int64) * HEADS + tl.program_id(1)
    split = tl.arange(0, SPLITS).to(tl.int64) * tokens * HEADS
    depth = tl.arange(0, DIMENSION)
    largest = tl.load(largest_of + split + mine)
    most = tl.max(largest, 0)
    share = tl.where(largest == float("-inf"), 0.0, tl.exp(largest - most))
    total = tl.sum(share * tl.load(total_of + split + mine), 0)
    parts = tl.load(partial + (split + mine)[:, None] * DIMENSION + depth[None, :])
    sums = tl.sum(parts * share[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    tl.store(result + mine * DIMENSION + depth, sums.to(result.dtype.element_ty))
