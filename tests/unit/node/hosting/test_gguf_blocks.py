"""Packed blocks of a GGUF file are taken over bit for bit."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from node.engine.base import EngineRequest
from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.errors import EngineFailed
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.engine.weights.packings import Int4Groups, Int8Groups, as_floats
from node.engine.weights.scheme import QuantisedSource, activation_type
from node.hosting.gguf import GgufFile
from node.hosting.gguf_blocks import packed_from
from node.hosting.read import read_model
from protocols.errors import ModelFileError
from protocols.messages.ask import Sampling
from tests.effort import examples

Make = Callable[..., Path]
KINDS = ["Q4_0", "Q4_1", "Q8_0"]
NAMES = ["embedding", "layers.0.query", "layers.1.key", "layers.0.value", "layers.1.down"]


def blocks_of(kind: GGMLQuantizationType, rows: int, groups: int, seed: int) -> NDArray[np.uint8]:
    """Any bytes, but scales that are numbers."""
    random = np.random.default_rng(seed)
    _, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (rows, groups, size), dtype=np.uint8)
    fields = 2 if kind is GGMLQuantizationType.Q4_1 else 1
    scales = random.normal(0, 10.0 ** random.integers(-6, 4), (rows, groups, fields))
    scales = np.clip(scales, -60_000, 60_000).astype(np.float16)
    blocks[..., : 2 * fields] = scales.view(np.uint8)
    return blocks.reshape(rows, groups * size)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=st.integers(1, 40), groups=st.integers(1, 9), seed=st.integers(0, 2**31))
@settings(max_examples=examples(100), deadline=None)
def test_blocks_are_what_ggml_says(kind: str, rows: int, groups: int, seed: int) -> None:
    ours = GGMLQuantizationType[kind]
    blocks = blocks_of(ours, rows, groups, seed)
    packed = packed_from(blocks, ours)
    assert packed is not None
    wanted = torch.from_numpy(dequantize(blocks, ours))
    assert torch.equal(packed.dequantised(), wanted)


def test_other_kinds_have_no_packing() -> None:
    blocks = blocks_of(GGMLQuantizationType.Q5_1, 2, 2, 1)
    assert packed_from(blocks, GGMLQuantizationType.Q5_1) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_read_packed_as_it_is_read_in_floats(
    make_gguf: Make, make_llama: Callable[..., Any], kind: str
) -> None:
    model = make_llama(num_key_value_heads=1)
    weights = read_model(make_gguf(model, quantisation=GGMLQuantizationType[kind]))
    assert weights.kept_as == ("int8" if kind == "Q8_0" else "int4")
    for name in NAMES:
        packed = weights.stored.read(name)
        assert isinstance(packed, Int8Groups if kind == "Q8_0" else Int4Groups)
        assert torch.equal(packed.dequantised(), weights.tensors.read(name))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q5_0", "Q5_1"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_other_files_are_quantised_by_ours(make_gguf: Make, kind: str, precision: Any) -> None:
    weights = read_model(make_gguf(quantisation=GGMLQuantizationType[kind]))
    assert weights.kept_as is None
    source = QuantisedSource(weights.stored, weights.config, precision)
    for name in NAMES:
        plain = weights.tensors.read(name)
        held = source.read(name)
        assert not isinstance(held, torch.Tensor)
        loss = (held.dequantised() - plain).norm() / plain.norm()
        assert loss < (0.11 if precision == "int4" else 0.015)


@pytest.mark.parametrize("kind", KINDS)
def test_the_referee_on_packed_blocks_has_the_tokens_of_transformers(
    make_gguf: Make, make_llama: Callable[..., Any], kind: str
) -> None:
    """transformers computes with the weights that the `gguf` package dequantises."""
    reference = make_llama()
    path = make_gguf(reference, quantisation=GGMLQuantizationType[kind])
    weights = read_model(path)
    state = reference.state_dict()
    for ours, theirs in _THEIRS.items():
        state[theirs] = weights.tensors.read(ours)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    reference.load_state_dict(state)
    prompt = [5, 17, 300, 42, 9]
    wanted = reference.generate(
        torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=None
    )[0].tolist()
    model = LlamaModel(weights.config, weights.stored, torch.float32, 128)
    assert model.size < weights.config.parameters * 4 / 2.5
    cache = KeyValueCache(weights.config, 64, torch.float32)
    ids, done = list(prompt), 0
    while len(ids) < len(wanted):
        chunk = Chunk(ids[done:], done, range(4), True)
        logits = model.forward(build_batch([chunk], torch.float32), cache)
        done = len(ids)
        ids.append(int(logits[0].argmax()))
    assert ids == wanted


def test_the_rows_of_the_file_are_not_changed_by_reading(make_gguf: Make) -> None:
    stored = read_model(make_gguf(quantisation=GGMLQuantizationType.Q4_1)).stored
    first = stored.read("layers.0.down")
    assert isinstance(first, Int4Groups)
    first.codes.zero_()
    first.scales.zero_()
    again = as_floats(stored.read("layers.0.down"))
    assert again.abs().sum() > 0
    assert again.std() > 0


@pytest.mark.parametrize("columns", [0, 1, 31, 33, 48, 95, 97, 2**31, 2**63 - 1])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_no_whole_blocks_are_refused(
    make_gguf: Make, kind: str, columns: int
) -> None:
    path = make_gguf(quantisation=GGMLQuantizationType[kind])
    data, name = path.read_bytes(), b"blk.0.ffn_down.weight"
    at = data.index(name) + len(name) + 4
    assert struct.unpack_from("<Q", data, at) == (96,)
    path.write_bytes(data[:at] + struct.pack("<Q", columns) + data[at + 8 :])
    with pytest.raises(ModelFileError, match=r"blocks|dimension|within|shape"):
        read_model(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_ends_within_its_blocks_is_refused(make_gguf: Make, kind: str) -> None:
    path = make_gguf(quantisation=GGMLQuantizationType[kind])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelFileError, match="ends within tensor"):
        read_model(path)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("bits", [b"\x00\x7e", b"\x00\x7c", b"\x00\xfc"])
async def test_blocks_with_scales_that_are_no_numbers_fail_the_engine(
    make_gguf: Make, precision: Any, bits: bytes
) -> None:
    """NaN and infinities are found by what they make of the logits, not turned into tokens."""
    path = make_gguf(quantisation=GGMLQuantizationType.Q4_1)
    start = GgufFile(path).tensors["blk.1.ffn_down.weight"].start
    data = path.read_bytes()
    path.write_bytes(data[:start] + bits + data[start + 2 :])
    weights = read_model(path)
    source = QuantisedSource(weights.stored, weights.config, precision)
    model = LlamaModel(weights.config, source, activation_type(precision), 64)
    engine = TorchEngine(model, EngineOptions(64, 64))
    engine.submit(EngineRequest("a", (5, 6), 4, Sampling(), frozenset()))
    with pytest.raises(EngineFailed, match="not a number"):
        engine.step()


_PARTS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_THEIRS = {"embedding": "model.embed_tokens.weight"} | {
    f"layers.{index}.{ours}": f"model.layers.{index}.{theirs}.weight"
    for index in range(2)
    for ours, theirs in _PARTS.items()
}
