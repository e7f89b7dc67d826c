"""One step's work as the table of numbers that the GPU reads, written into memory that stays.

Knows chunks, pages and the columns; needs no GPU. A step is filled up to the next size of a ladder,
so that few graphs serve all; rows that fill up write nowhere and are read by nobody.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from node.engine.batch import Chunk
from node.engine.cuda.columns import (
    BLOCK_COUNT,
    BLOCK_FIRST,
    BLOCK_TABLE,
    COLUMNS,
    LOGIT_ROW,
    POSITION,
    SLOT,
    TOKEN,
)
from node.engine.pages import PAGE_SIZE, pages_for

LADDER = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
"""Sizes of a step, in tokens."""
TOKENS_MAX = LADDER[-1]
LOGITS_MAX = 256
"""Rows of logits that are computed at once."""
TABLES_MAX = 512
"""Sequences whose pages the GPU knows at a time."""
_FEW = 4
"""Up to so many tokens of a sequence each are attended for on their own."""


def rung(size: int) -> int:
    """The smallest step of the ladder that holds `size`."""
    return next(one for one in LADDER if one >= size)


@dataclass(frozen=True, slots=True)
class StepShape:
    """A step's sizes. `blocks` is the number of blocks of attention of `span` tokens at most."""

    tokens: int
    blocks: int
    span: int
    logits: int


class PageTables:
    """The block tables of the sequences that were seen last, mirrored on the device.

    A sequence keeps its row for as long as others do not need it, so that a step copies only what
    has changed.
    """

    def __init__(self, rows: int, width: int, pages: int, device: torch.device) -> None:
        """`rows` sequences of up to `width` pages each, out of `pages`."""
        self._host = _staged((rows, width), device)
        self._numbers = self._host.numpy()
        self.device = torch.zeros((rows, width), dtype=torch.int32, device=device)
        self._pages = pages
        self._free = list(range(rows))
        self._rows: OrderedDict[int, int] = OrderedDict()
        self._content: list[list[int]] = [[] for _ in range(rows)]
        self._changed: list[int] = []

    @property
    def rows(self) -> int:
        """How many sequences one step can have."""
        return len(self._content)

    @property
    def width(self) -> int:
        """How many pages a sequence can have."""
        return int(self._numbers.shape[1])

    def row(self, pages: Sequence[int]) -> int:
        """Where `pages` stand, put there if they did not. `ValueError` for a page there is not.

        Looked up by the identity of `pages`, which a sequence keeps, and then compared.
        """
        key = id(pages)
        found = self._rows.get(key)
        if found is None:
            found = self._free.pop() if self._free else self._rows.popitem(last=False)[1]
            self._rows[key] = found
        else:
            self._rows.move_to_end(key)
        if self._content[found] != pages:
            self._write(found, list(pages))
        return found

    def _write(self, row: int, pages: list[int]) -> None:
        if min(pages) < 0 or max(pages) >= self._pages:
            raise ValueError(f"there are {self._pages} pages")
        self._content[row] = pages
        kept = pages[: self.width]
        self._numbers[row, : len(kept)] = kept
        self._changed.append(row)

    def send(self) -> None:
        """Copy to the device what has changed."""
        if self._changed:
            rows = slice(min(self._changed), max(self._changed) + 1)
            self.device[rows].copy_(self._host[rows], non_blocking=True)
            self._changed.clear()


class StepTable:
    """The numbers of one step at a time, on the host and on the device."""

    def __init__(self, tables: PageTables, vocabulary: int, device: torch.device) -> None:
        self._tables = tables
        self._vocabulary = vocabulary
        self._host = _staged((TOKENS_MAX, COLUMNS), device)
        self._numbers = self._host.numpy()
        self.device = torch.zeros((TOKENS_MAX, COLUMNS), dtype=torch.int32, device=device)

    def write(self, chunks: Sequence[Chunk], span: int) -> StepShape | None:
        """Lay `chunks` out on the host; None if they are more than the tables hold.

        `span` is how many tokens a block of attention has where chunks are long; short ones have
        one each. `ValueError` for a token or a page that there is not.
        """
        count = sum(len(chunk.token_ids) for chunk in chunks)
        if count > TOKENS_MAX or len(chunks) > self._tables.rows:
            return None
        if max(chunk.seen for chunk in chunks) > self._tables.width * PAGE_SIZE:
            return None
        if max(len(chunk.token_ids) for chunk in chunks) <= _FEW:
            span = 1
        size = rung(count)
        self._fill_tokens(chunks, count, size)
        blocks = self._fill_blocks(chunks, span, size)
        wanted = self._fill_logits(chunks)
        return StepShape(size, blocks, span, wanted)

    def clear(self, size: int) -> None:
        """Lay out a step of `size` tokens none of which is there."""
        self._numbers[:size] = 0
        self._numbers[:size, SLOT] = -1

    def send(self, size: int) -> None:
        """Copy the first `size` rows to the device: always between the same places."""
        self.device[:size].copy_(self._host[:size], non_blocking=True)

    def _fill_tokens(self, chunks: Sequence[Chunk], count: int, size: int) -> None:
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for chunk in chunks:
            tokens += chunk.token_ids
            start, stop, pages = chunk.position, chunk.seen, chunk.pages
            positions += range(start, stop)
            slots += [
                pages[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE
                for position in range(start, stop)
            ]
        if min(tokens) < 0 or max(tokens) >= self._vocabulary:
            raise ValueError("a batch needs tokens of the vocabulary")
        numbers = self._numbers
        numbers[count:size] = 0
        numbers[count:size, SLOT] = -1
        numbers[:count, TOKEN] = tokens
        numbers[:count, POSITION] = positions
        numbers[:count, SLOT] = slots

    def _fill_blocks(self, chunks: Sequence[Chunk], span: int, size: int) -> int:
        """How many blocks are computed, those that are not there included."""
        firsts: list[int] = []
        counts: list[int] = []
        rows: list[int] = []
        start = 0
        for chunk in chunks:
            row, stop = self._tables.row(chunk.pages), start + len(chunk.token_ids)
            for first in range(start, stop, span):
                firsts.append(first)
                counts.append(min(span, stop - first))
                rows.append(row)
            start = stop
        blocks = len(firsts)
        numbers = self._numbers
        numbers[:size, BLOCK_COUNT] = 0
        numbers[:blocks, BLOCK_FIRST] = firsts
        numbers[:blocks, BLOCK_COUNT] = counts
        numbers[:blocks, BLOCK_TABLE] = rows
        return max(blocks, blocks_for(size, span))

    def _fill_logits(self, chunks: Sequence[Chunk]) -> int:
        wanted: list[int] = []
        stop = 0
        for chunk in chunks:
            stop += len(chunk.token_ids)
            wanted += range(stop - chunk.logits, stop)
        self._numbers[: len(wanted), LOGIT_ROW] = wanted
        return len(wanted)


def blocks_for(size: int, span: int) -> int:
    """For how many blocks a step of `size` tokens is made ready; rarely there are more."""
    return size if span == 1 else min(size, -(-size // span) + 16)


def table_width(positions: int, pages: int) -> int:
    """Pages that one sequence can have."""
    return min(pages_for(positions), pages)


def _staged(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """int32 zeros that the device can copy from while the host goes on."""
    return torch.zeros(shape, dtype=torch.int32, pin_memory=device.type == "cuda")
