"""Attention of a flat batch over cached keys and values, one span after the other.

Knows tensors and spans; must not know weights, requests or who owns the cache. A later backend
(pages, a GPU kernel) replaces `attend` and nothing else.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from node.engine.batch import Span


def attend(queries: Tensor, keys: Tensor, values: Tensor, spans: Sequence[Span]) -> Tensor:
    """`[tokens, heads * dimension]` from `queries` [tokens, heads, dimension].

    `keys` and `values` are `[kv_heads, slots, dimension]`; a span reads its own slots only, so a
    sequence's result does not depend on what else is in the batch.
    """
    outputs = [_attend_span(queries[span.start : span.stop], keys, values, span) for span in spans]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend_span(queries: Tensor, keys: Tensor, values: Tensor, span: Span) -> Tensor:
    """The queries that share a key-value head are packed into one long row of queries.

    That is several times faster on a CPU than repeating the keys or than one query per head.
    """
    rows, heads, dimension = queries.shape
    kv_heads = keys.shape[0]
    group = heads // kv_heads
    stop = span.first_slot + span.slots
    packed = queries.view(rows, kv_heads, group, dimension).permute(1, 2, 0, 3)
    result = scaled_dot_product_attention(
        packed.reshape(1, kv_heads, group * rows, dimension),
        keys[:, span.first_slot : stop].unsqueeze(0),
        values[:, span.first_slot : stop].unsqueeze(0),
        attn_mask=None if span.mask is None else span.mask.repeat(group, 1),
    )
    unpacked = result.view(kv_heads, group, rows, dimension).permute(2, 0, 1, 3)
    return unpacked.reshape(rows, heads * dimension)
