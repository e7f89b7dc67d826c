"""Sliding windows against the plainest mask, however the pages lie."""

import torch

from node.engine.batch import Chunk, Span, build_batch
from node.engine.pages import PAGE_SIZE
from node.engine.window import windowed


def positions_seen(span: Span, pages: list[int]) -> list[list[int]]:
    """For each row, the positions that it may look at."""
    order = {page: index for index, page in enumerate(pages)}
    columns = [
        order[span.pages[c // PAGE_SIZE]] * PAGE_SIZE + c % PAGE_SIZE for c in range(span.seen)
    ]
    if span.mask is None:
        return [columns]
    assert span.mask.shape == (span.stop - span.start, span.seen)
    return [[columns[c] for c in torch.nonzero(row == 0).flatten()] for row in span.mask]


def test_each_row_sees_the_last_positions_and_itself() -> None:
    runs, gaps = list(range(3, 8)), [9, 2, 11, 4, 5]
    for pages in (runs, gaps):
        for position, rows, window in [
            (0, 5, 3),
            (20, 1, 16),
            (33, 7, 20),
            (70, 1, 5),
            (47, 3, 99),
        ]:
            chunk = Chunk(list(range(rows)), position, pages, True)
            batch = build_batch([Chunk([1], 0, [0], True), chunk], torch.float32)
            span = windowed(batch, window, torch.float32)[1]
            wanted = [
                list(range(max(0, at - window + 1), at + 1))
                for at in range(position, position + rows)
            ]
            assert positions_seen(span, pages) == wanted
            assert span.first_slot == span.pages[0] * PAGE_SIZE
            assert pages is gaps or span.gather is None
            if span.gather is not None:
                assert span.gather.tolist() == list(span.pages)


def test_what_lies_within_the_window_is_left_as_it_is() -> None:
    batch = build_batch([Chunk(list(range(9)), 0, [0], True)], torch.float32)
    assert windowed(batch, 9, torch.float32) == batch.spans


def test_pages_before_the_window_are_not_read() -> None:
    pages = list(range(20))
    batch = build_batch([Chunk([1], 300, pages, True)], torch.float32)
    span = windowed(batch, 17, torch.float32)[0]
    assert list(span.pages) == [17, 18]
    assert span.seen == 301 - 17 * PAGE_SIZE
