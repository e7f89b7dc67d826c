"""The forward pass that gradients go through: batches padded at the end, hidden states out.

Knows a frozen base and an adapter's matrices; must not know examples, losses or files. Computes
what the engine computes for the same tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import dropout, rms_norm, scaled_dot_product_attention, silu

from node.engine.adapters.layout import Place
from node.engine.adapters.weights import ProductName
from node.engine.rope import rotate
from node.training.base import FrozenBase, FrozenLayer
from node.training.low_rank import LowRankParameters, adapted_product


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """An adapter in one pass. `gate` as in `adapted_product`; `dropped` is the share of the reduced
    numbers that is left out (0 outside training).
    """

    a: Mapping[Place, Tensor]
    b: Mapping[Place, Tensor]
    gate: Tensor | None = None
    dropped: float = 0.0

    def pair(self, place: Place) -> tuple[Tensor, Tensor]:
        """A and B of one product."""
        return self.a[place], self.b[place]

    def gate_of(self, place: Place, rows: Tensor) -> Tensor | None:
        """The gate, with fresh gaps where numbers are left out."""
        if not self.dropped:
            return self.gate
        ones = torch.ones((len(rows), len(self.a[place])), device=rows.device, dtype=rows.dtype)
        gaps = dropout(ones, self.dropped)
        return gaps if self.gate is None else gaps * self.gate


def applied(
    adapter: LowRankParameters, begins: Tensor | None, length: int, dropped: float = 0.0
) -> Applied:
    """`adapter` on a batch of rows of `length` tokens, from the positions `begins` [rows] on."""
    gate = None
    if begins is not None:
        positions = torch.arange(length, device=begins.device)
        gate = (positions >= begins.unsqueeze(1)).to(adapter.dtype).view(-1, 1)
    return Applied(adapter.a, adapter.masked(), gate, dropped)


def hidden_states(base: FrozenBase, ids: Tensor, adapter: Applied | None = None) -> Tensor:
    """`[rows * length, hidden]` for `ids` [rows, length], after the last norm.

    Padding belongs at the ends of rows: nothing sees what comes after it.
    """
    batch, length = ids.shape
    cosines, sines = base.cosines[:length], base.sines[:length]
    hidden = base.embedding[ids.reshape(-1)]
    for index, layer in enumerate(base.layers):
        block = Block(base, layer, index, adapter)
        normed = block.norm(hidden, layer.attention_norm)
        stacked = block.multiply("query_key_value", normed).view(batch, length, -1)
        seen = _attend(base, stacked, cosines, sines)
        hidden = hidden + block.multiply("output", seen)
        normed = block.norm(hidden, layer.feed_forward_norm)
        gate, up = block.multiply("gate_up", normed).chunk(2, dim=-1)
        hidden = hidden + block.multiply("down", silu(gate) * up)
    return rms_norm(hidden, base.final_norm.shape, base.final_norm, base.config.norm_epsilon)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    base: FrozenBase
    layer: FrozenLayer
    index: int
    adapter: Applied | None

    def multiply(self, product: ProductName, rows: Tensor) -> Tensor:
        weight = self.layer.products[product]
        if self.adapter is None:
            return adapted_product(rows, weight, None, None)
        place = (self.index, product)
        gate = self.adapter.gate_of(place, rows)
        return adapted_product(rows, weight, self.adapter.pair(place), gate)

    def norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(hidden, weight.shape, weight, self.base.config.norm_epsilon)


def split_heads(
    base: FrozenBase, stacked: Tensor, cosines: Tensor, sines: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries and keys, and values, each `[rows, heads, length, dimension]`."""
    config = base.config
    heads, kv_heads = config.heads, config.kv_heads
    vectors = stacked.view(*stacked.shape[:2], heads + 2 * kv_heads, config.head_dimension)
    turned = rotate(vectors[:, :, : heads + kv_heads], cosines, sines)
    values = vectors[:, :, heads + kv_heads :]
    queries, keys = turned[:, :, :heads], turned[:, :, heads:]
    return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)


def _attend(base: FrozenBase, stacked: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    queries, keys, values = split_heads(base, stacked, cosines, sines)
    seen = scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
    return seen.transpose(1, 2).reshape(stacked.shape[0] * stacked.shape[1], -1)
