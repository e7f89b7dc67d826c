from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from node.engine.base import EngineRequest
from node.engine.batch import Chunk, build_batch, causal_mask
from node.engine.cache import KeyValueCache
from node.engine.config import LlamaConfig, RopeScaling
from node.engine.errors import EngineFailed
from node.engine.model import LlamaModel, TensorSource
from node.engine.rope import inverse_frequencies
from node.engine.torch_engine import EngineOptions, TorchEngine
from protocols.messages.ask import Sampling

MakeWeights = Callable[[LlamaConfig, int], TensorSource]
NAMES = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
LLAMA3 = RopeScaling(
    "llama3",
    factor=8.0,
    low_frequency_factor=1.0,
    high_frequency_factor=4.0,
    original_context_length=64,
)


def reference(config: LlamaConfig, weights: TensorSource) -> Any:
    """The same weights in transformers' implementation."""
    from transformers import LlamaConfig as ReferenceConfig
    from transformers import LlamaForCausalLM

    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope |= {"rope_type": config.rope_scaling.kind, "factor": config.rope_scaling.factor}
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        rope |= {
            "low_freq_factor": config.rope_scaling.low_frequency_factor,
            "high_freq_factor": config.rope_scaling.high_frequency_factor,
            "original_max_position_embeddings": config.rope_scaling.original_context_length,
        }
    model: Any = LlamaForCausalLM(
        ReferenceConfig(
            vocab_size=config.vocabulary_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dimension,
            max_position_embeddings=config.context_length,
            rms_norm_eps=config.norm_epsilon,
            rope_parameters=rope,
            tie_word_embeddings=config.tied_embeddings,
        )
    )
    model.eval()
    state = {"model.embed_tokens.weight": weights.read("embedding")}
    state["model.norm.weight"] = weights.read("final_norm")
    state["lm_head.weight"] = weights.read("embedding" if config.tied_embeddings else "head")
    for index in range(config.layers):
        for ours, theirs in NAMES.items():
            tensor = weights.read(f"layers.{index}.{ours}")
            state[f"model.layers.{index}.{theirs}.weight"] = tensor
    model.load_state_dict(state)
    return model


def logits_of(
    model: LlamaModel,
    chunks: list[list[int]],
    pages: tuple[int, ...] = (2, 3, 4, 5),
    cache: KeyValueCache | None = None,
) -> Tensor:
    """Logits after the last token, the prompt given in chunks."""
    cache = cache or KeyValueCache(model.config, 100, model.dtype)
    position, logits = 0, torch.empty(0)
    for ids in chunks:
        chunk = Chunk(ids, position, pages, logits=1)
        logits = model.forward(build_batch([chunk], model.dtype), cache)
        position += len(ids)
    return logits


def test_a_chunk_tells_what_follows_each_of_its_last_tokens(
    tiny_config: LlamaConfig, random_weights: MakeWeights
) -> None:
    model = LlamaModel(tiny_config, random_weights(tiny_config, 3), torch.float32, 128)
    ids = torch.randint(0, 61, (20,), generator=torch.Generator().manual_seed(1)).tolist()
    cache = KeyValueCache(tiny_config, 100, torch.float32)
    chunks = [Chunk(ids[:9], 0, (0,), logits=0), Chunk(ids, 0, (2, 3), logits=5)]
    logits = model.forward(build_batch(chunks, torch.float32), cache)
    assert len(logits) == 5
    for row, length in enumerate(range(16, 21)):
        assert torch.allclose(logits[row], logits_of(model, [ids[:length]])[0], atol=1e-4)


SHAPES = {
    "grouped": {},
    "multi_head": {"kv_heads": 4},
    "multi_query": {"kv_heads": 1},
    "untied": {"tied_embeddings": False},
    "wide_heads": {"head_dimension": 16},
    "linear_rope": {"rope_scaling": RopeScaling("linear", factor=4.0)},
    "llama3_rope": {"rope_scaling": LLAMA3},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_transformers(
    shape: str, tiny_config: LlamaConfig, random_weights: MakeWeights
) -> None:
    config = replace(tiny_config, **SHAPES[shape])  # type: ignore[arg-type]
    weights = random_weights(config, 3)
    ids = torch.randint(0, 61, (50,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.inference_mode():
        wanted = reference(config, weights)(torch.tensor([ids])).logits[0, -1]
    model = LlamaModel(config, weights, torch.float32, 128)
    for chunks in ([ids], [ids[:1], ids[1:20], ids[20:49], ids[49:]]):
        for pages in ((2, 3, 4, 5), (6, 0, 3, 1)):
            got = logits_of(model, chunks, pages)[0]
            assert torch.allclose(got, wanted, atol=2e-4, rtol=1e-4)


def test_the_scaled_frequencies_differ_from_the_plain_ones(tiny_config: LlamaConfig) -> None:
    """Else the comparison above would not test the scaling."""
    plain = inverse_frequencies(tiny_config)
    scaled = inverse_frequencies(replace(tiny_config, rope_scaling=LLAMA3))
    assert not torch.allclose(plain, scaled)
    divisors = tuple((plain / scaled).tolist())
    table = RopeScaling("table", divisors=divisors)
    assert torch.allclose(inverse_frequencies(replace(tiny_config, rope_scaling=table)), scaled)


def test_bf16_is_near_fp32(tiny_config: LlamaConfig, random_weights: MakeWeights) -> None:
    weights = random_weights(tiny_config, 3)
    ids = list(range(20))
    exact, rough = (
        logits_of(LlamaModel(tiny_config, weights, dtype, 128), [ids[:19], ids[19:]])[0]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, rough, dim=0) > 0.995


@pytest.mark.parametrize("shape", ["grouped", "multi_head", "multi_query"])
@pytest.mark.parametrize("pages", [(2, 3, 4, 5), (6, 0, 3, 1)])
def test_a_cache_in_int8_is_near_the_exact_one(
    shape: str, pages: tuple[int, ...], tiny_config: LlamaConfig, random_weights: MakeWeights
) -> None:
    config = replace(tiny_config, **SHAPES[shape])  # type: ignore[arg-type]
    model = LlamaModel(config, random_weights(config, 3), torch.float32, 128)
    ids = list(range(50))
    cache = KeyValueCache(config, 112, torch.float32, is_quantised=True)
    exact = logits_of(model, [ids[:30], ids[30:]], pages)[0]
    rough = logits_of(model, [ids[:30], ids[30:]], pages, cache)[0]
    assert 0 < (rough - exact).abs().max() < 0.02 * exact.abs().max()


def test_sequences_in_one_batch_do_not_see_each_other(
    tiny_config: LlamaConfig, random_weights: MakeWeights
) -> None:
    model = LlamaModel(tiny_config, random_weights(tiny_config, 3), torch.float32, 128)
    cache = KeyValueCache(tiny_config, 100, torch.float32)
    chunks = [
        Chunk([1, 2, 3], 0, (0,), True),
        Chunk([4] * 7, 0, (3,), True),
        Chunk([5], 0, (1,), True),
    ]
    together = model.forward(build_batch(chunks, torch.float32), cache)
    for row, ids in enumerate(([1, 2, 3], [4] * 7, [5])):
        assert torch.allclose(together[row], logits_of(model, [ids])[0], atol=1e-4)


def test_reading_reports_progress_and_size(
    tiny_config: LlamaConfig, random_weights: MakeWeights
) -> None:
    heard: list[float] = []
    weights = random_weights(tiny_config, 3)
    model = LlamaModel(tiny_config, weights, torch.float32, 10, heard.append)
    assert heard == [0.5, 1.0]
    assert model.size == tiny_config.parameters * 4 + 2 * 10 * 8 * 4


def test_parameters_are_counted_as_transformers_counts_them(
    tiny_config: LlamaConfig, random_weights: MakeWeights
) -> None:
    for tied in (True, False):
        config = replace(tiny_config, tied_embeddings=tied)
        model = reference(config, random_weights(config, 0))
        assert config.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "change",
    [{"heads": 5}, {"layers": 0}, {"head_dimension": 7}, {"rope_theta": 0.0}, {"kv_heads": 0}],
)
def test_a_shape_that_cannot_be_computed_is_refused(
    tiny_config: LlamaConfig, change: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"head|layers|rope|kv"):
        replace(tiny_config, **change)


def test_the_mask_is_aligned_to_the_end() -> None:
    mask = causal_mask(2, 4, torch.float32)
    assert mask is not None
    assert (mask == 0).tolist() == [[True, True, True, False], [True] * 4]
    assert causal_mask(1, 9, torch.float32) is None


class _Damaged:
    def __init__(self, weights: TensorSource) -> None:
        self._weights = weights

    def read(self, name: str) -> Tensor:
        tensor = self._weights.read(name)
        return tensor.fill_(float("nan")) if name == "final_norm" else tensor


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damaged_weights_fail_the_engine_instead_of_giving_tokens(
    tiny_config: LlamaConfig, random_weights: MakeWeights, temperature: float
) -> None:
    weights = _Damaged(random_weights(tiny_config, 3))
    model = LlamaModel(tiny_config, weights, torch.float32, 128)
    engine = TorchEngine(model, EngineOptions(128, 256))
    engine.submit(EngineRequest("a", (1, 2), 3, Sampling(temperature=temperature), frozenset()))
    with pytest.raises(EngineFailed, match="not a number"):
        engine.step()


def test_a_closed_engine_fails(tiny_config: LlamaConfig, random_weights: MakeWeights) -> None:
    model = LlamaModel(tiny_config, random_weights(tiny_config, 3), torch.float32, 128)
    engine = TorchEngine(model, EngineOptions(128, 256))
    engine.submit(EngineRequest("a", (1, 2), 3, Sampling(), frozenset()))
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.step()
