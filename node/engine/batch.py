"""One step's work as a flat batch of tokens, with columns that say where each token belongs.

Knows the layout only; must not know requests, scheduling or the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from node.engine.pages import PAGE_SIZE, pages_for

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens of one sequence that go through the model together.

    The first of `token_ids` has position `position`. `pages` is the sequence's block table: the
    keys and values of position p lie in page `pages[p // PAGE_SIZE]`. The last `logits` tokens want
    to know what comes next. `adapter` is a handle of an `AdapterSet` (-1: none) that applies from
    position `adapter_from` on.
    """

    token_ids: Sequence[int]
    position: int
    pages: Sequence[int]
    logits: int
    adapter: int = -1
    adapter_from: int = 0

    @property
    def seen(self) -> int:
        """How many positions the last token attends to, itself included."""
        return self.position + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Span:
    """The rows `start` to `stop` of a batch: one chunk, and the `seen` positions that it sees.

    `pages` holds those positions. Where they follow each other `gather` is None and the positions
    are the slots from `first_slot` on; else `gather` is `pages` as a tensor. `mask` is
    `[rows, seen]`, added to the scores; None for a single row, which sees all.
    """

    start: int
    stop: int
    seen: int
    pages: Sequence[int]
    first_slot: int
    gather: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Columns of length `tokens`, the spans that cover them, and the rows that want logits.

    `slots` is where each token's keys and values go: page times `PAGE_SIZE` plus offset.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    spans: tuple[Span, ...]
    logit_rows: Tensor


def build_batch(
    chunks: Sequence[Chunk], dtype: torch.dtype, device: torch.device = CPU
) -> StepBatch:
    """`chunks` laid out one after the other on `device`; `dtype` is the model's, for the masks."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    logit_rows: list[int] = []
    spans: list[Span] = []
    for chunk in chunks:
        start = len(token_ids)
        token_ids += chunk.token_ids
        positions += range(chunk.position, chunk.seen)
        slots += _slots(chunk)
        logit_rows += range(len(token_ids) - chunk.logits, len(token_ids))
        spans.append(_span(chunk, start, dtype, device))
    return StepBatch(
        token_ids=torch.tensor(token_ids, device=device),
        positions=torch.tensor(positions, device=device),
        slots=torch.tensor(slots, device=device),
        spans=tuple(spans),
        logit_rows=torch.tensor(logit_rows, dtype=torch.int64, device=device),
    )


def _slots(chunk: Chunk) -> list[int]:
    return [
        chunk.pages[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE
        for position in range(chunk.position, chunk.seen)
    ]


def adapter_column(chunks: Sequence[Chunk]) -> list[int]:
    """The handle of each token's adapter, or -1; an `AdapterSet` makes a plan of it."""
    return [handle for chunk in chunks for handle in _adapters(chunk)]


def _adapters(chunk: Chunk) -> list[int]:
    base = min(max(0, chunk.adapter_from - chunk.position), len(chunk.token_ids))
    return [-1] * base + [chunk.adapter] * (len(chunk.token_ids) - base)


def _span(chunk: Chunk, start: int, dtype: torch.dtype, device: torch.device) -> Span:
    pages = list(chunk.pages[: pages_for(chunk.seen)])
    is_run = pages == list(range(pages[0], pages[0] + len(pages)))
    return Span(
        start=start,
        stop=start + len(chunk.token_ids),
        seen=chunk.seen,
        pages=pages,
        first_slot=pages[0] * PAGE_SIZE,
        gather=None if is_run else torch.tensor(pages, device=device),
        mask=causal_mask(len(chunk.token_ids), chunk.seen, dtype, device),
    )


def causal_mask(
    rows: int, columns: int, dtype: torch.dtype, device: torch.device = CPU
) -> Tensor | None:
    """`[rows, columns]`: 0 where the last `rows` of `columns` positions may look, else -inf.

    Bottom-right aligned, unlike SDPA's own causal flag; None for a single row.
    """
    if rows == 1:
        return None
    mask = torch.full((rows, columns), float("-inf"), dtype=dtype, device=device)
    return mask.triu_(columns - rows + 1)
