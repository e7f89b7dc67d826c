"""Greedy answers to many prompts at once, for measuring: one cache, all rows in step.

Knows the forward pass; must not know requests or sampling. The engine serves people; this only has
to be quick on a large batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from node.training.base import FrozenBase
from node.training.examples import TokenRow
from node.training.forward import Applied, Block, split_heads
from node.training.low_rank import LowRankParameters


@torch.inference_mode()
def generate(
    base: FrozenBase,
    adapter: LowRankParameters | None,
    rows: Sequence[TokenRow],
    *,
    end: int,
    longest: int = 256,
    activated: bool = False,
) -> list[list[int]]:
    """The likeliest tokens after each row's prompt, without `end`; at most `longest` of them."""
    device = base.device
    lengths = torch.tensor([row.answer for row in rows], device=device)
    width = int(lengths.max())
    ids = torch.zeros((len(rows), width), dtype=torch.int64, device=device)
    for index, row in enumerate(rows):
        ids[index, : row.answer] = torch.from_numpy(row.ids[: row.answer].astype("int64"))
    begins = torch.tensor([row.header for row in rows], device=device) if activated else None
    cached = _Cached(base, adapter, begins, (len(rows), width + longest))
    positions = torch.arange(width, device=device).expand(len(rows), width)
    hidden = cached.run(ids, positions, is_prompt=True)
    hidden = hidden[torch.arange(len(rows), device=device), lengths - 1]
    done = torch.zeros(len(rows), dtype=torch.bool, device=device)
    given: list[Tensor] = []
    for step in range(longest):
        tokens = (hidden @ base.head.t()).argmax(dim=-1)
        tokens = torch.where(done, end, tokens)
        given.append(tokens)
        done = done | (tokens == end)
        if step % 16 == 15 and bool(done.all()):
            break
        hidden = cached.run(tokens.unsqueeze(1), (lengths + step).unsqueeze(1))[:, 0]
    answers = torch.stack(given, dim=1).tolist()
    return [answer[: answer.index(end)] if end in answer else answer for answer in answers]


class _Cached:
    """Keys and values of all rows, `[rows, heads, positions, dimension]` a layer."""

    def __init__(
        self,
        base: FrozenBase,
        adapter: LowRankParameters | None,
        begins: Tensor | None,
        size: tuple[int, int],
    ) -> None:
        self._base = base
        self._begins = begins
        self._a = adapter.a if adapter else {}
        self._b = adapter.masked() if adapter else {}
        config = base.config
        shape = (config.layers, 2, size[0], config.kv_heads, size[1], config.head_dimension)
        self._cache = torch.zeros(shape, device=base.device, dtype=base.dtype)

    def run(self, ids: Tensor, positions: Tensor, *, is_prompt: bool = False) -> Tensor:
        """Hidden states `[rows, length, hidden]` of new tokens at `positions` [rows, length]."""
        base, (batch, length) = self._base, ids.shape
        adapter = Applied(self._a, self._b, self._gate(positions)) if self._a else None
        cosines, sines = base.cosines[positions], base.sines[positions]
        seen_up_to = torch.arange(self._cache.shape[4], device=base.device)
        mask = (seen_up_to <= positions[:, -1:]).view(batch, 1, 1, -1)
        hidden = base.embedding[ids.reshape(-1)]
        for index, layer in enumerate(base.layers):
            block = Block(base, layer, index, adapter)
            normed = block.norm(hidden, layer.attention_norm)
            stacked = block.multiply("query_key_value", normed).view(batch, length, -1)
            queries, keys, values = split_heads(base, stacked, cosines, sines)
            cache = self._cache[index]
            if is_prompt:
                cache[0, :, :, :length], cache[1, :, :, :length] = keys, values
                seen = scaled_dot_product_attention(
                    queries, keys, values, is_causal=True, enable_gqa=True
                )
            else:
                rows = torch.arange(batch, device=base.device)
                cache[0, rows, :, positions[:, 0]] = keys[:, :, 0]
                cache[1, rows, :, positions[:, 0]] = values[:, :, 0]
                seen = _read(queries, cache[0], cache[1], mask)
            seen = seen.transpose(1, 2).reshape(batch * length, -1)
            hidden = hidden + block.multiply("output", seen)
            normed = block.norm(hidden, layer.feed_forward_norm)
            gate, up = block.multiply("gate_up", normed).chunk(2, dim=-1)
            hidden = hidden + block.multiply("down", silu(gate) * up)
        norm = base.final_norm
        return rms_norm(hidden, norm.shape, norm, base.config.norm_epsilon).view(batch, length, -1)

    def _gate(self, positions: Tensor) -> Tensor | None:
        if self._begins is None:
            return None
        return (positions >= self._begins.unsqueeze(1)).to(self._base.dtype).reshape(-1, 1)


def _read(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """One query a head: those that share keys are read as rows of one query."""
    batch, heads, _, dimension = queries.shape
    kv_heads = keys.shape[1]
    packed = queries.view(batch, kv_heads, heads // kv_heads, dimension)
    seen = scaled_dot_product_attention(packed, keys, values, attn_mask=mask)
    return seen.reshape(batch, heads, 1, dimension)
