"""Matrix products of a decoder with all that surrounds them, one Triton kernel each.

Knows tensors in memory; must not know layers or graphs. Tokens are rows; weights are `[out, in]`.
What is known of each token lies in one row of `COLUMNS` numbers (`node.engine.cuda.columns`).

A norm is split between two kernels: who adds to a row multiplies it by the next norm's weight and
notes its squares, `PART` columns a sum; who reads it divides the product by the length. With
`OVERLAPS` a kernel starts while the one before it ends, and reads weights until that is done.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from node.engine.cuda.columns import COLUMNS, LOGIT_ROW, PART, POSITION, SLOT, TOKEN

_COLUMNS = tl.constexpr(COLUMNS)
_TOKEN = tl.constexpr(TOKEN)
_POSITION = tl.constexpr(POSITION)
_SLOT = tl.constexpr(SLOT)
_LOGIT_ROW = tl.constexpr(LOGIT_ROW)
_PART = tl.constexpr(PART)


@triton.jit
def begin(OVERLAPS: tl.constexpr):
    """Let the next kernel start: it waits by itself for what this one writes."""
    if OVERLAPS:
        gdc_launch_dependents()


@triton.jit
def wait(OVERLAPS: tl.constexpr):
    """Until all kernels before have written. Before it, only weights may be read."""
    if OVERLAPS:
        gdc_wait()


@triton.jit
def embed(
    numbers, embedding, norm, hidden, scaled, squares, width, parts,
    BLOCK: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    """The rows of `embedding` that the tokens name: `hidden`, `scaled`, `squares` as `project_add`.

    The first part has all squares of a row.
    """
    begin(OVERLAPS)
    wait(OVERLAPS)
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(numbers + row * _COLUMNS + _TOKEN).to(tl.int64)
    inner = tl.arange(0, BLOCK)
    known = inner < width
    found = tl.load(embedding + token * width + inner, mask=known, other=0.0)
    wide = found.to(tl.float32)
    tl.store(hidden + row * width + inner, found, mask=known)
    factor = tl.load(norm + inner, mask=known, other=0.0).to(tl.float32)
    tl.store(scaled + row * width + inner, (wide * factor).to(found.dtype), mask=known)
    total = tl.where(inner == 0, tl.sum(wide * wide, 0), 0.0)
    tl.store(squares + row * parts + inner, total, mask=inner < parts)


@triton.jit
def _length(squares, row, valid, width, parts, epsilon, PARTS: tl.constexpr):
    """One over the length of each row, `[rows, 1]`, from the sums of its parts."""
    part = tl.arange(0, PARTS)
    places = squares + row[:, None].to(tl.int64) * parts + part[None, :]
    found = tl.load(places, mask=valid[:, None] & (part < parts)[None, :], other=0.0)
    return tl.rsqrt(tl.sum(found, 1) / width + epsilon)[:, None]


@triton.jit
def _at_once(rows, valid, weights, width, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """A few rows times weights that are already here, `[BN, BK]`, with all columns at once."""
    inner = tl.arange(0, BK)
    read = valid[:, None] & (inner < width)[None, :]
    x = tl.load(rows + inner[None, :], mask=read, other=0.0).to(tl.float32)
    which = tl.arange(0, BM)
    result = tl.zeros((BM, BN), dtype=tl.float32)
    for one in tl.static_range(BM):
        mine = tl.sum(tl.where((which == one)[:, None], x, 0.0), 0)
        sums = tl.sum(weights.to(tl.float32) * mine[None, :], 1)
        result = tl.where((which == one)[:, None], sums[None, :], result)
    return result


@triton.jit
def _weights(first, width, BK: tl.constexpr):
    """All columns of the weights whose rows begin at `first`: `[BN, BK]`."""
    inner = tl.arange(0, BK)
    places = first[:, None] + inner[None, :]
    return tl.load(places, mask=(inner < width)[None, :], other=0.0)


@triton.jit
def _product(rows, valid, first, width, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Rows times weights whose rows begin at `first`: fp32 `[BM, BN]`."""
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, width, BK):
        inner = start + tl.arange(0, BK)
        known = inner < width
        x = tl.load(rows + inner[None, :], mask=valid[:, None] & known[None, :], other=0.0)
        a = tl.load(first[None, :] + inner[:, None], mask=known[:, None], other=0.0)
        sums = tl.dot(x, a, sums, input_precision="ieee")
    return sums


@triton.jit
def _pair(
    rows, valid, first, second, width,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, FEW: tl.constexpr, OVERLAPS:
    tl.constexpr,
):  # fmt: skip
    """As `_product`, with two blocks of weights."""
    if FEW:
        a = _weights(first, width, BK)
        b = _weights(second, width, BK)
        wait(OVERLAPS)
        one = _at_once(rows, valid, a, width, BM, BN, BK)
        other = _at_once(rows, valid, b, width, BM, BN, BK)
    else:
        wait(OVERLAPS)
        one = tl.zeros((BM, BN), dtype=tl.float32)
        other = tl.zeros((BM, BN), dtype=tl.float32)
        for start in range(0, width, BK):
            inner = start + tl.arange(0, BK)
            known = inner < width
            x = tl.load(rows + inner[None, :], mask=valid[:, None] & known[None, :], other=0.0)
            a = tl.load(first[None, :] + inner[:, None], mask=known[:, None], other=0.0)
            one = tl.dot(x, a, one, input_precision="ieee")
            b = tl.load(second[None, :] + inner[:, None], mask=known[:, None], other=0.0)
            other = tl.dot(x, b, other, input_precision="ieee")
    return one, other


@triton.jit(do_not_specialize=["tokens"])
def project_heads(
    numbers, scaled, squares, weight, cosines, sines, queries, keys, values, tokens, width,
    capacity, epsilon, parts,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIMENSION: tl.constexpr, PARTS: tl.constexpr, BM:
    tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, FEW: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    """Queries, keys and values of normed rows, rotated; keys and values go to the cache.

    `cosines` and `sines` are `[positions, DIMENSION / 2]`, `keys` and `values`
    `[KV_HEADS, capacity, DIMENSION]`. A token whose slot is -1 is written nowhere.
    """
    begin(OVERLAPS)
    half: tl.constexpr = DIMENSION // 2
    head = tl.program_id(0) // (half // BN)
    columns = (tl.program_id(0) % (half // BN)) * BN + tl.arange(0, BN)
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    valid = row < tokens
    first = weight + (head * DIMENSION + columns).to(tl.int64) * width
    rows = scaled + row[:, None].to(tl.int64) * width
    lower, upper = _pair(rows, valid, first, first + half * width, width, BM, BN, BK, FEW, OVERLAPS)
    scale = _length(squares, row, valid, width, parts, epsilon, PARTS)
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
    scaled, squares, weight, gated, tokens, width, inner_width, epsilon, parts,
    PARTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, FEW: tl.constexpr,
    OVERLAPS: tl.constexpr,
):  # fmt: skip
    """`gated` [tokens, inner_width]: of normed rows, SiLU of the gate times up."""
    begin(OVERLAPS)
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    valid = row < tokens
    first = weight + columns.to(tl.int64) * width
    second = first + inner_width.to(tl.int64) * width
    rows = scaled + row[:, None].to(tl.int64) * width
    gate, up = _pair(rows, valid, first, second, width, BM, BN, BK, FEW, OVERLAPS)
    scale = _length(squares, row, valid, width, parts, epsilon, PARTS)
    gate *= scale
    up *= scale
    result = gate * tl.sigmoid(gate) * up
    place = gated + row[:, None].to(tl.int64) * inner_width + columns[None, :]
    tl.store(place, result.to(gated.dtype.element_ty), mask=valid[:, None])


@triton.jit(do_not_specialize=["tokens"])
def project_add(
    source, weight, norm, hidden, scaled, squares, tokens, width, out, parts,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, FEW: tl.constexpr, OVERLAPS:
    tl.constexpr,
):  # fmt: skip
    """Add `source` [tokens, width] times `weight` to `hidden` [tokens, out], in place.

    `scaled` is the sum times `norm`, and `squares` [tokens, parts] the sums of its squares.
    """
    begin(OVERLAPS)
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    valid = row < tokens
    rows = source + row[:, None].to(tl.int64) * width
    first = weight + columns.to(tl.int64) * width
    factor = tl.load(norm + columns).to(tl.float32)
    if FEW:
        a = _weights(first, width, BK)
        wait(OVERLAPS)
        sums = _at_once(rows, valid, a, width, BM, BN, BK)
    else:
        wait(OVERLAPS)
        sums = _product(rows, valid, first, width, BM, BN, BK)
    place = row[:, None].to(tl.int64) * out + columns[None, :]
    before = tl.load(hidden + place, mask=valid[:, None], other=0.0).to(tl.float32)
    after = (before + sums).to(hidden.dtype.element_ty)
    tl.store(hidden + place, after, mask=valid[:, None])
    wide = after.to(tl.float32)
    tl.store(scaled + place, (wide * factor[None, :]).to(after.dtype), mask=valid[:, None])
    totals = tl.sum(tl.reshape(wide * wide, (BM, BN // _PART, _PART)), 2)
    part = tl.program_id(0) * (BN // _PART) + tl.arange(0, BN // _PART)
    noted = squares + row[:, None].to(tl.int64) * parts + part[None, :]
    tl.store(noted, totals, mask=valid[:, None])


@triton.jit(do_not_specialize=["rows_wanted"])
def project_vocabulary(
    numbers, scaled, squares, weight, logits, best, best_token, rows_wanted, width, vocabulary,
    blocks, epsilon, parts,
    PARTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, FEW: tl.constexpr,
    OVERLAPS: tl.constexpr,
):  # fmt: skip
    """Head for the wanted normed rows: `logits` [rows_wanted, vocabulary], fp32.

    `best` and `best_token` [rows_wanted, blocks] are the largest logit of each block of columns and
    whose it is; infinite where one is not a number.
    """
    begin(OVERLAPS)
    block = tl.program_id(0)
    columns = block * BN + tl.arange(0, BN)
    known = columns < vocabulary
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    valid = row < rows_wanted
    first = weight + tl.where(known, columns, 0).to(tl.int64) * width
    if FEW:
        a = _weights(first, width, BK)
        wait(OVERLAPS)
        index = tl.load(numbers + row * _COLUMNS + _LOGIT_ROW, mask=valid, other=0)
        rows = scaled + index[:, None].to(tl.int64) * width
        sums = _at_once(rows, valid, a, width, BM, BN, BK)
    else:
        wait(OVERLAPS)
        index = tl.load(numbers + row * _COLUMNS + _LOGIT_ROW, mask=valid, other=0)
        rows = scaled + index[:, None].to(tl.int64) * width
        sums = _product(rows, valid, first, width, BM, BN, BK)
    sums *= _length(squares, index, valid, width, parts, epsilon, PARTS)
    place = logits + row[:, None].to(tl.int64) * vocabulary + columns[None, :]
    tl.store(place, sums, mask=valid[:, None] & known[None, :])
    is_broken = tl.max((sums != sums).to(tl.int32), 1) > 0
    among = tl.where(known[None, :], sums, float("-inf"))
    largest = tl.where(is_broken, float("inf"), tl.max(among, 1))
    tl.store(best + row * blocks + block, largest, mask=valid)
    tl.store(best_token + row * blocks + block, block * BN + tl.argmax(among, 1), mask=valid)


@triton.jit
def choose_best(best, best_token, chosen, blocks, BLOCKS: tl.constexpr, OVERLAPS: tl.constexpr):
    """`chosen` [rows]: the token of the largest logit of all; -1 where that is not finite."""
    begin(OVERLAPS)
    wait(OVERLAPS)
    row = tl.program_id(0)
    block = tl.arange(0, BLOCKS)
    values = tl.load(best + row * blocks + block, mask=block < blocks, other=float("-inf"))
    largest = tl.max(values, 0)
    token = tl.load(best_token + row * blocks + tl.argmax(values, 0))
    is_number = (largest != float("inf")) & (largest != float("-inf"))
    tl.store(chosen + row, tl.where(is_number, token, -1))
