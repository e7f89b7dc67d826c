"""One step's work as a flat batch of tokens, with columns that say where each token belongs.

Knows the layout only; must not know requests, scheduling or the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens of one sequence that go through the model together.

    The first of `token_ids` has position `position`. The keys and values of position p lie in
    cache slot `first_slot + p`, so the chunk sees the slots from `first_slot` on.
    """

    token_ids: Sequence[int]
    position: int
    first_slot: int
    wants_logits: bool

    @property
    def seen(self) -> int:
        """How many positions the last token attends to, itself included."""
        return self.position + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Span:
    """The rows `start` to `stop` of a batch: one chunk, and the cache slots that it sees.

    `mask` is `[rows, slots]`, added to the scores; None for a single row, which sees all.
    """

    start: int
    stop: int
    first_slot: int
    slots: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Columns of length `tokens`, the spans that cover them, and the rows that want logits."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    spans: tuple[Span, ...]
    logit_rows: Tensor


def build_batch(chunks: Sequence[Chunk], dtype: torch.dtype) -> StepBatch:
    """`chunks` laid out one after the other; `dtype` is the model's, for the masks."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    logit_rows: list[int] = []
    spans: list[Span] = []
    for chunk in chunks:
        start = len(token_ids)
        token_ids += chunk.token_ids
        positions += range(chunk.position, chunk.seen)
        slots += range(chunk.first_slot + chunk.position, chunk.first_slot + chunk.seen)
        if chunk.wants_logits:
            logit_rows.append(len(token_ids) - 1)
        mask = causal_mask(len(chunk.token_ids), chunk.seen, dtype)
        spans.append(Span(start, len(token_ids), chunk.first_slot, chunk.seen, mask))
    return StepBatch(
        token_ids=torch.tensor(token_ids),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        spans=tuple(spans),
        logit_rows=torch.tensor(logit_rows, dtype=torch.int64),
    )


def causal_mask(rows: int, columns: int, dtype: torch.dtype) -> Tensor | None:
    """`[rows, columns]`: 0 where the last `rows` of `columns` positions may look, else -inf.

    Bottom-right aligned, unlike SDPA's own causal flag; None for a single row.
    """
    if rows == 1:
        return None
    mask = torch.full((rows, columns), float("-inf"), dtype=dtype)
    return mask.triu_(columns - rows + 1)
