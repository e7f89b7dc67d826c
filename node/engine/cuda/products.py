"""Matrix products of a decoder with all that surrounds them, one Triton kernel each.

Knows tensors in memory; must not know layers or graphs. Tokens are rows; weights are `[out, in]`.
What is known of each token lies in one row of `COLUMNS` numbers (`node.engine.cuda.columns`).
"""

import triton
import triton.language as tl

from node.engine.cuda.columns import (
    COLUMNS,
    LOGIT_ROW,
    POSITION,
    SLOT,
    TOKEN,
)

_COLUMNS = tl.constexpr(COLUMNS)
_TOKEN = tl.constexpr(TOKEN)
_POSITION = tl.constexpr(POSITION)
_SLOT = tl.constexpr(SLOT)
_LOGIT_ROW = tl.constexpr(LOGIT_ROW)


@triton.jit
def embed(numbers, embedding, hidden, width, BLOCK: tl.constexpr):
    """`hidden` [tokens, width]: the rows of `embedding` that the tokens name."""
    row = tl.program_id(0)
    token = tl.load(numbers + row * _COLUMNS + _TOKEN).to(tl.int64)
    for start in range(0, width, BLOCK):
        inner = start + tl.arange(0, BLOCK)
        found = tl.load(embedding + token * width + inner, mask=inner < width)
        tl.store(hidden + row.to(tl.int64) * width + inner, found, mask=inner < width)


@triton.jit
def _pair(
    rows, norm, first, second, valid, width, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    """Rows, normed but for their length, times two blocks of columns; and the sums of squares.

    The length of a row is known only after the last of its columns: it is divided by afterwards.
    """
    one = tl.zeros((BM, BN), dtype=tl.float32)
    other = tl.zeros((BM, BN), dtype=tl.float32)
    squares = tl.zeros((BM,), dtype=tl.float32)
    for start in range(0, width, BK):
        inner = start + tl.arange(0, BK)
        x = tl.load(rows + inner[None, :], mask=valid[:, None], other=0.0)
        wide = x.to(tl.float32)
        squares += tl.sum(wide * wide, 1)
        scaled = (wide * tl.load(norm + inner).to(tl.float32)[None, :]).to(x.dtype)
        a = tl.load(first + inner[:, None])
        one = tl.dot(scaled, a, one, input_precision="ieee")
        b = tl.load(second + inner[:, None])
        other = tl.dot(scaled, b, other, input_precision="ieee")
    return one, other, squares


@triton.jit(do_not_specialize=["tokens"])
def project_heads(
    numbers,
    hidden,
    norm,
    weight,
    cosines,
    sines,
    queries,
    keys,
    values,
    tokens,
    width,
    capacity,
    epsilon,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIMENSION: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Norm, queries, keys and values, rotation; keys and values go to the cache.

    `cosines` and `sines` are `[positions, DIMENSION / 2]`, `keys` and `values`
    `[KV_HEADS, capacity, DIMENSION]`. A token whose slot is -1 is written nowhere.
    """
    half: tl.constexpr = DIMENSION // 2
    head = tl.program_id(0) // (half // BN)
    columns = (tl.program_id(0) % (half // BN)) * BN + tl.arange(0, BN)
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    valid = row < tokens
    first = weight + (head * DIMENSION + columns)[None, :].to(tl.int64) * width
    lower, upper, squares = _pair(
        hidden + row[:, None].to(tl.int64) * width,
        norm,
        first,
        first + half * width,
        valid,
        width,
        BM,
        BN,
        BK,
    )
    scale = tl.rsqrt(squares / width + epsilon)[:, None]
    lower *= scale
    upper *= scale
    position = tl.load(numbers + row * _COLUMNS + _POSITION, mask=valid, other=0)
    turn = position[:, None].to(tl.int64) * half + columns[None, :]
    is_turned = valid[:, None] & (head < HEADS + KV_HEADS)
    cosine = tl.load(cosines + turn, mask=is_turned, other=1.0).to(tl.float32)
    sine = tl.load(sines + turn, mask=is_turned, other=0.0).to(tl.float32)
    turned_lower = lower * cosine - upper * sine
    turned_upper = upper * cosine + lower * sine
    if head < HEADS:
        place = queries + (row[:, None].to(tl.int64) * HEADS + head) * DIMENSION + columns[None, :]
        tl.store(place, turned_lower.to(queries.dtype.element_ty), mask=valid[:, None])
        tl.store(place + half, turned_upper.to(queries.dtype.element_ty), mask=valid[:, None])
    else:
        slot = tl.load(numbers + row * _COLUMNS + _SLOT, mask=valid, other=-1).to(tl.int64)
        kept = (slot >= 0)[:, None]
        kv_head = (head - HEADS) % KV_HEADS
        offset = (kv_head * capacity.to(tl.int64) + slot[:, None]) * DIMENSION + columns[None, :]
        if head < HEADS + KV_HEADS:
            tl.store(keys + offset, turned_lower.to(keys.dtype.element_ty), mask=kept)
            tl.store(keys + offset + half, turned_upper.to(keys.dtype.element_ty), mask=kept)
        else:
            tl.store(values + offset, turned_lower.to(values.dtype.element_ty), mask=kept)
            tl.store(values + offset + half, turned_upper.to(values.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=["tokens"])
def project_gate(
    hidden,
    norm,
    weight,
    gated,
    tokens,
    width,
    inner_width,
    epsilon,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Norm, gate and up, SiLU of the one times the other: `gated` [tokens, inner_width]."""
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    valid = row < tokens
    first = weight + columns[None, :].to(tl.int64) * width
    second = first + inner_width.to(tl.int64) * width
    gate, up, squares = _pair(
        hidden + row[:, None].to(tl.int64) * width, norm, first, second, valid, width, BM, BN, BK
    )
    scale = tl.rsqrt(squares / width + epsilon)[:, None]
    gate *= scale
    up *= scale
    result = gate * tl.sigmoid(gate) * up
    place = gated + row[:, None].to(tl.int64) * inner_width + columns[None, :]
    tl.store(place, result.to(gated.dtype.element_ty), mask=valid[:, None])


@triton.jit(do_not_specialize=["tokens"])
def project_add(
    source,
    weight,
    hidden,
    tokens,
    width,
    out,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Add `source` [tokens, width] times `weight` to `hidden` [tokens, out], in place."""
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    valid = row < tokens
    rows = source + row[:, None].to(tl.int64) * width
    first = weight + columns[None, :].to(tl.int64) * width
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, width, BK):
        inner = start + tl.arange(0, BK)
        x = tl.load(rows + inner[None, :], mask=valid[:, None], other=0.0)
        a = tl.load(first + inner[:, None])
        sums = tl.dot(x, a, sums, input_precision="ieee")
    place = hidden + row[:, None].to(tl.int64) * out + columns[None, :]
    before = tl.load(place, mask=valid[:, None], other=0.0).to(tl.float32)
    tl.store(place, (before + sums).to(hidden.dtype.element_ty), mask=valid[:, None])


@triton.jit(do_not_specialize=["rows_wanted"])
def project_vocabulary(
    numbers,
    hidden,
    norm,
    weight,
    logits,
    best,
    best_token,
    rows_wanted,
    width,
    vocabulary,
    blocks,
    epsilon,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Final norm and head for the wanted rows: `logits` [rows_wanted, vocabulary], fp32.

    `best` and `best_token` [rows_wanted, blocks] are the largest logit of each block of columns and
    whose it is; infinite where one is not a number.
    """
    block = tl.program_id(0)
    columns = block * BN + tl.arange(0, BN)
    known = columns < vocabulary
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    valid = row < rows_wanted
    index = tl.load(numbers + row * _COLUMNS + _LOGIT_ROW, mask=valid, other=0).to(tl.int64)
    rows = hidden + index[:, None] * width
    first = weight + columns[None, :].to(tl.int64) * width
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    squares = tl.zeros((BM,), dtype=tl.float32)
    for start in range(0, width, BK):
        inner = start + tl.arange(0, BK)
        x = tl.load(rows + inner[None, :], mask=valid[:, None], other=0.0)
        wide = x.to(tl.float32)
        squares += tl.sum(wide * wide, 1)
        scaled = (wide * tl.load(norm + inner).to(tl.float32)[None, :]).to(x.dtype)
        a = tl.load(first + inner[:, None], mask=known[None, :], other=0.0)
        sums = tl.dot(scaled, a, sums, input_precision="ieee")
    sums *= tl.rsqrt(squares / width + epsilon)[:, None]
    place = logits + row[:, None].to(tl.int64) * vocabulary + columns[None, :]
    tl.store(place, sums, mask=valid[:, None] & known[None, :])
    is_broken = tl.max((sums != sums).to(tl.int32), 1) > 0
    among = tl.where(known[None, :], sums, float("-inf"))
    largest = tl.where(is_broken, float("inf"), tl.max(among, 1))
    tl.store(best + row * blocks + block, largest, mask=valid)
    tl.store(best_token + row * blocks + block, block * BN + tl.argmax(among, 1), mask=valid)


@triton.jit
def choose_best(best, best_token, chosen, blocks, BLOCKS: tl.constexpr):
    """`chosen` [rows]: the token of the largest logit of all; -1 where that is not finite."""
    row = tl.program_id(0)
    block = tl.arange(0, BLOCKS)
    values = tl.load(best + row * blocks + block, mask=block < blocks, other=float("-inf"))
    largest = tl.max(values, 0)
    token = tl.load(best_token + row * blocks + tl.argmax(values, 0))
    is_number = (largest != float("inf")) & (largest != float("-inf"))
    tl.store(chosen + row, tl.where(is_number, token, -1))
