"""BERT's token states by torch: for processors that multiply in bf16 by themselves.

Knows torch and weights; must not know files, tokenizers or what the states are for.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from node.hosting.encoder_file import Affine, BertLayer, BertWeights, Norm

_Activation = Literal["none", "gelu"]
_Product = Callable[[Tensor], Tensor]


def has_bf16() -> bool:
    """Whether this processor has instructions for products in bf16, and torch uses them.

    Without them torch computes in bf16 too, but slowly.
    """
    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16")) and _packs(torch.bfloat16)


@dataclass(frozen=True, slots=True)
class _Layer:
    mixed: _Product
    """Queries, keys and values, side by side."""
    output: _Product
    attended: tuple[Tensor, Tensor]
    up: _Product
    down: _Product
    done: tuple[Tensor, Tensor]


class TorchBert:
    """Token states of one text at a time; products in `dtype`, sums and norms in fp32."""

    def __init__(
        self, weights: BertWeights, heads: int, dtype: torch.dtype, threads: int = 1
    ) -> None:
        """Convert and pack `weights`; they are not kept. `ValueError` if `heads` do not fit."""
        self._dimensions = weights.positions.shape[1]
        if self._dimensions % heads:
            raise ValueError(f"{self._dimensions} dimensions are not {heads} heads")
        self._heads = heads
        self._dtype = dtype
        self._epsilon = weights.epsilon
        self._words = torch.tensor(weights.words)
        self._word_scales = torch.tensor(weights.word_scales)
        self._positions = torch.tensor(weights.positions)
        self._norm = _norm(weights.norm)
        self._layers = [_layer(one, dtype) for one in weights.layers]
        self._pool = threads_of(threads)

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """`[tokens]` to `[tokens, dimensions]`; as many tokens as there are positions at most."""
        return self._pool.submit(self._states, ids).result()

    @torch.inference_mode()
    def _states(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = torch.from_numpy(ids)
        embedded = self._words[rows] * self._word_scales[rows] + self._positions[: len(rows)]
        state = self._normed(embedded, self._norm)
        for layer in self._layers:
            attended = layer.output(self._attention(layer.mixed(state.to(self._dtype))))
            state = self._normed(state + attended, layer.attended)
            changed = layer.down(layer.up(state.to(self._dtype)))
            state = self._normed(state + changed, layer.done)
        return state.numpy()

    def _normed(self, state: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(state, (self._dimensions,), *norm, self._epsilon)

    def _attention(self, mixed: Tensor) -> Tensor:
        tokens = len(mixed)
        parts = mixed.view(1, tokens, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return found.transpose(1, 2).reshape(tokens, self._dimensions)


def bf16_bert(weights: Callable[[], BertWeights], heads: int, threads: int) -> TorchBert | None:
    """The quick one, or None where it would not be; then `weights` is not called."""
    return TorchBert(weights(), heads, torch.bfloat16, threads) if has_bf16() else None


def threads_of(count: int) -> ThreadPoolExecutor:
    """One worker in which torch computes with `count` threads; elsewhere nothing changes.

    torch takes over its number for each new thread when that first asks for it: from then on the
    worker has its own.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, "encoder", initializer=torch.set_num_threads, initargs=(count,))
    pool.submit(torch.get_num_threads).result()
    torch.set_num_threads(before)
    return pool


def _layer(layer: BertLayer, dtype: torch.dtype) -> _Layer:
    three = (layer.query, layer.key, layer.value)
    mixed = Affine(
        np.concatenate([one.weight for one in three], axis=1),
        np.concatenate([one.bias for one in three]),
    )
    return _Layer(
        mixed=_product(mixed, dtype),
        output=_product(layer.output, dtype),
        attended=_norm(layer.attended),
        up=_product(layer.up, dtype, "gelu"),
        down=_product(layer.down, dtype),
        done=_norm(layer.done),
    )


def _norm(norm: Norm) -> tuple[Tensor, Tensor]:
    return torch.tensor(norm.weight), torch.tensor(norm.bias)


def _product(affine: Affine, dtype: torch.dtype, activation: _Activation = "none") -> _Product:
    """`affine` in `dtype`, packed once as oneDNN wants it; else it would be with every call.

    The GELU is the one with the error function, as BERT's.
    """
    weight = torch.from_numpy(np.ascontiguousarray(affine.weight.T)).to(dtype)
    bias = torch.tensor(affine.bias, dtype=dtype)
    is_gelu = activation == "gelu"
    if not _packs(dtype):

        def plain(state: Tensor) -> Tensor:
            found = functional.linear(state, weight, bias)
            return functional.gelu(found) if is_gelu else found

        return plain
    operators = torch.ops.mkldnn
    packed = operators._reorder_linear_weight(weight, None)
    algorithm = "none" if is_gelu else ""

    def multiply(state: Tensor) -> Tensor:
        found: Tensor = operators._linear_pointwise(state, packed, bias, activation, [], algorithm)
        return found

    return multiply


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes products in `dtype` here. torch's own compiler uses the same calls;
    they have no public names.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    operators = torch.ops.mkldnn
    has_type = dtype != torch.bfloat16 or operators._is_mkldnn_bf16_supported()
    return bool(has_type) and hasattr(operators, "_linear_pointwise")
