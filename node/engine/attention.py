"""Attention of a flat batch over cached keys and values, one span after the other.

Knows tensors and spans; must not know weights, requests or who owns the cache. This is the
reference: a faster backend replaces `attend`, reads the pages of a `LayerCache` by the spans' block
tables, and nothing else changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from node.engine.batch import Span
from node.engine.cache import LayerCache


def attend(
    queries: Tensor, cache: LayerCache, spans: Sequence[Span], scale: float | None = None
) -> Tensor:
    """`[tokens, heads * dimension]` from `queries` [tokens, heads, dimension].

    A span reads its own pages only, so a sequence's result does not depend on what else is in the
    batch. Scores are multiplied by `scale`; None is one over the root of the dimension.
    """
    outputs = [
        _attend_span(queries[span.start : span.stop], *cache.read(span), span.mask, scale)
        for span in spans
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend_span(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None
) -> Tensor:
    """`keys` and `values` are `[kv_heads, seen, dimension]`, `mask` `[rows, seen]`.

    The queries that share a key-value head are packed into one long row of queries: that is several
    times faster on a CPU than repeating the keys or than one query per head.
    """
    rows, heads, dimension = queries.shape
    kv_heads = keys.shape[0]
    group = heads // kv_heads
    packed = queries.view(rows, kv_heads, group, dimension).permute(1, 2, 0, 3)
    result = scaled_dot_product_attention(
        packed.reshape(1, kv_heads, group * rows, dimension),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=None if mask is None else mask.repeat(group, 1),
        scale=scale,
    )
    unpacked = result.view(kv_heads, group, rows, dimension).permute(2, 0, 1, 3)
    return unpacked.reshape(rows, heads * dimension)
