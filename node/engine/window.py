"""Sliding windows: the part of what is cached that a token may still see.

Knows spans and positions; must not know layers or how attention is computed. Pages that no window
reaches any more stay where they are: other layers, and other requests, may need them.
"""

from dataclasses import replace

import torch
from torch import Tensor

from node.engine.batch import Span, StepBatch
from node.engine.pages import PAGE_SIZE


def windowed(batch: StepBatch, window: int, dtype: torch.dtype) -> tuple[Span, ...]:
    """The spans of `batch`, in which each row sees the last `window` positions, its own included.

    Pages before the window are not read at all. `dtype` is the model's, for the masks.
    """
    return tuple(
        _windowed(span, batch.positions[span.start : span.stop], window, dtype)
        for span in batch.spans
    )


def _windowed(span: Span, positions: Tensor, window: int, dtype: torch.dtype) -> Span:
    if span.seen <= window:
        return span
    rows = span.stop - span.start
    # A row of a tree is not where it stands in the batch: its position says what it reaches.
    columns = torch.cat((torch.arange(span.seen - rows, device=positions.device), positions))
    hidden = columns <= positions.unsqueeze(1) - window
    if span.mask is None:
        mask = torch.zeros(rows, span.seen, dtype=dtype, device=positions.device)
    else:
        mask = span.mask
    mask = mask.masked_fill(hidden, float("-inf"))
    first_page = max(int(positions.min()) + 1 - window, 0) // PAGE_SIZE
    gather = None if span.gather is None else span.gather[first_page:]
    return replace(
        span,
        seen=span.seen - first_page * PAGE_SIZE,
        pages=span.pages[first_page:],
        first_slot=span.pages[first_page] * PAGE_SIZE,
        gather=gather,
        mask=mask[:, first_page * PAGE_SIZE :],
    )
