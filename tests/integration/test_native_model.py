"""The real model in compiled code: what it says, and how it comes to be computed so."""

import json
from pathlib import Path

import pytest
import torch

from node.engine.base import Ended, EngineRequest, Generated
from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.engine.native.library import NativeLibrary
from node.engine.native.model import NativeModel, NativeOptions
from node.engine.weights.scheme import Precision, QuantisedSource
from node.hosting.hosted import HostedModel, HostedSpec, load_model
from node.hosting.kernels import KernelSettings
from node.hosting.weights import ModelWeights
from protocols.errors import UserError
from protocols.ids import SpecialistId
from protocols.messages.ask import ChatMessage, Sampling

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]

TOKENS = 192
AGREEMENT = 0.95
"""The share of positions of a text at which the likeliest token must be the referee's: near-ties
fall either way."""
ERROR: dict[Precision, float] = {"int4": 0.02, "int8": 0.02, "bf16": 0.008}
GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2_greedy.json"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int4", "int8", "bf16"])
def test_it_agrees_with_the_referee(
    library: NativeLibrary, weights: ModelWeights, precision: Precision
) -> None:
    text = Path(__file__).read_text("utf-8")
    ids = weights.tokenizer.encode_text(text)[:TOKENS]
    source = QuantisedSource(weights.stored, weights.config, precision)
    model = LlamaModel(weights.config, source, torch.float32, TOKENS)
    batch = build_batch([Chunk(ids, 0, range(12), True)], torch.float32)
    object.__setattr__(batch, "logit_rows", torch.arange(TOKENS))
    wanted = model.forward(batch, KeyValueCache(weights.config, TOKENS, torch.float32))
    options = NativeOptions(precision, TOKENS, threads=2)
    runner = NativeModel(weights.config, source, library, options).open(TOKENS)
    got = runner.logits([Chunk(ids, 0, range(12), True)], range(TOKENS))
    runner.close()
    agreement = float((got.argmax(-1) == wanted.argmax(-1)).float().mean())
    error = float((got - wanted).norm() / wanted.norm())
    print(f"{precision}: top-1 {agreement:.3f}, error {error:.4f}")  # noqa: T201
    assert agreement > AGREEMENT
    assert error < ERROR[precision]


def spec(path: Path, kernels: KernelSettings) -> HostedSpec:
    return HostedSpec(path, SpecialistId("smollm2"), "int4", 2, 256, 1, kernels)


async def answer(model: HostedModel, prompt: str) -> list[int]:
    ids = model.tokenizer.encode_chat([ChatMessage("user", prompt)])
    generation = model.generate(EngineRequest("a", tuple(ids), 24, Sampling(), frozenset()))
    tokens = []
    while not isinstance(output := await generation.next(), Ended):
        assert isinstance(output, Generated)
        tokens.append(output.token_id)
    return tokens


@pytest.mark.usefixtures("library")
async def test_a_hosted_model_is_computed_natively_and_says_so(
    kernels_folder: Path, smollm2_path: Path
) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))[0]
    model = await load_model(spec(smollm2_path, KernelSettings("native", kernels_folder)))
    assert model.kernels.startswith("native, AVX")
    assert 95e6 < model.weights_size < 0.38 * 2 * model.parameters
    tokens = await answer(model, golden["prompt"])
    assert tokens[:6] == golden["ids"][:6]
    await model.close()


async def test_torch_computes_where_compiled_code_cannot(
    smollm2_path: Path, tmp_path: Path
) -> None:
    eager = await load_model(spec(smollm2_path, KernelSettings("eager", tmp_path)))
    assert eager.kernels == "torch, because engine.kernels asks for it"
    await eager.close()
    exposed = tmp_path / "exposed"
    exposed.mkdir()
    exposed.chmod(0o777)
    for settings in (KernelSettings("native"), KernelSettings("native", exposed)):
        with pytest.raises(UserError, match=r"engine\.kernels is native, but "):
            await load_model(spec(smollm2_path, settings))
