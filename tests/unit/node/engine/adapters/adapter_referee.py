"""Random adapters, and what transformers says with them merged, or with hooks on its linears."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from node.engine.adapters.weights import PARTS, Adapter, LowRank, PartName
from node.engine.config import LlamaConfig
from node.engine.weights.quantise import quantise_int8

MODULES: dict[PartName, str] = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def random_adapter(
    config: LlamaConfig,
    seed: int,
    *,
    rank: int = 4,
    parts: Sequence[PartName] = PARTS,
    shared_a: int | None = None,
    is_int8: bool = False,
) -> Adapter:
    """Large enough to change answers. Adapters with the same `shared_a` have the same A."""
    shapes = config.tensor_shapes()
    b_numbers = torch.Generator().manual_seed(seed)
    a_numbers = b_numbers if shared_a is None else torch.Generator().manual_seed(shared_a)
    pairs: dict[tuple[int, PartName], LowRank] = {}
    for layer in range(config.layers):
        for part in parts:
            out, into = shapes[f"layers.{layer}.{part}"]
            a = torch.randn(rank, into, generator=a_numbers) / into**0.5
            b = torch.randn(out, rank, generator=b_numbers) * 0.15
            pairs[layer, part] = LowRank(a, quantise_int8(b) if is_int8 else b, 2.0)
    return Adapter(f"adapter {seed} {rank} {shared_a} {is_int8}", pairs)


def merged_greedy(judge: Any, adapter: Adapter, prompt: Sequence[int], tokens: int) -> list[int]:
    """`tokens` ids that transformers generates with the adapter added to its weights."""
    weights = {key: _linear(judge, key).weight for key in adapter.parts}
    before = {key: weight.detach().clone() for key, weight in weights.items()}
    with torch.no_grad():
        for key, pair in adapter.parts.items():
            weights[key] += pair.delta()
        try:
            return hooked_greedy(judge, None, prompt, tokens, start=0)
        finally:
            for key, weight in weights.items():
                weight.copy_(before[key])


def hooked_greedy(
    judge: Any, adapter: Adapter | None, prompt: Sequence[int], tokens: int, *, start: int
) -> list[int]:
    """The same with the adapter's share added to each linear's output from `start` on.

    Without a cache: every step computes the whole sequence, so nothing but positions decides.
    """
    ids = torch.tensor([list(prompt)])
    with hooks(judge, adapter, start), torch.inference_mode():
        for _ in range(tokens):
            logits = judge(input_ids=ids, use_cache=False).logits[0, -1]
            ids = torch.cat((ids, logits.argmax().view(1, 1)), dim=1)
    answer: list[int] = ids[0, len(prompt) :].tolist()
    return answer


@contextmanager
def hooks(judge: Any, adapter: Adapter | None, start: int) -> Iterator[None]:
    """Within the block the adapter's share is added to each linear's output from `start` on."""
    handles = [
        _linear(judge, key).register_forward_hook(_adding(pair, start))
        for key, pair in (adapter.parts.items() if adapter else ())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(pair: LowRank, start: int) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    a, b = pair.a.float(), pair.scaled_b()

    def add(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        share = inputs[0] @ a.t() @ b.t()
        share[:, :start] = 0
        return output + share

    return add


def _linear(judge: Any, key: tuple[int, PartName]) -> Any:
    layer, part = key
    return judge.model.layers[layer].get_submodule(MODULES[part])
