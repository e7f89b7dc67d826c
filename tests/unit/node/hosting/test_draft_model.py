"""A small model from a file that guesses for another one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from node.engine.base import EngineRequest, Generated
from node.engine.config import LlamaConfig
from node.hosting import hosted
from node.hosting.draft_model import load_draft_model, read_draft_model
from node.hosting.hosted import HostedSpec, load_model
from node.hosting.memory import Load, draft_bytes, footprint, require_draft_room
from node.hosting.read import read_model
from protocols.errors import ModelFileError
from protocols.ids import SpecialistId
from protocols.messages.ask import Sampling
from tests.fuzz import model_files

Make = Callable[..., Path]


@dataclass(frozen=True, slots=True)
class Begun:
    """Implements `Text`."""

    request: EngineRequest
    tokens: tuple[int, ...]
    ticket: int = 1
    salt: str = ""


def request_of(prompt: tuple[int, ...], tokens: int) -> EngineRequest:
    return EngineRequest("a", prompt, tokens, Sampling(), frozenset())


def test_it_guesses_what_its_model_says(make_gguf: Make, make_llama: Callable[..., Any]) -> None:
    reference = make_llama()
    path = make_gguf(reference)
    draft = load_draft_model(read_draft_model(path, read_model(path), 128), "fp32", 128, 256)
    prompt = (7, 100, 30, 200, 5)
    found = draft.drafter.propose(Begun(request_of(prompt, 9), prompt), 6)
    wanted = reference.generate(
        torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=None
    )
    assert found is not None
    assert list(found.token_ids) == wanted[0][len(prompt) :].tolist()
    assert draft.size > 4 * 320 * 64


async def test_an_answer_is_the_same_with_and_without(make_gguf: Make) -> None:
    answers = []
    path = make_gguf()
    for draft in (None, path):
        spec = HostedSpec(path, SpecialistId("org/tiny"), slots=1, draft=draft)
        model = await load_model(spec)
        generation = model.generate(request_of((7, 100, 30), 12))
        outputs = [await generation.next() for _ in range(13)]
        answers.append([one.token_id for one in outputs if isinstance(one, Generated)])
        answers.append([model.size])
        await model.close()
    assert answers[0] == answers[2]
    assert answers[1] < answers[3], "the model that guesses takes memory too"


async def test_its_memory_is_predicted_and_refused_before_anything_is_loaded(
    make_gguf: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_gguf()
    weights = read_model(path)
    load = Load(path, weights.config, 1, 128, draft=weights.config)
    predicted = draft_bytes(load, "fp32")
    draft = load_draft_model(weights, "fp32", load.context_length, load.cache_tokens)
    assert draft.size == predicted > 4 * 320 * 64
    alone = footprint(replace(load, draft=None), "fp32").total
    assert footprint(load, "fp32").total == alone + predicted

    spec = HostedSpec(path, SpecialistId("org/tiny"), slots=1, context_length=128, draft=path)
    monkeypatch.setattr(hosted, "free_memory", lambda _device: alone + predicted - 1)
    monkeypatch.setattr(hosted, "build_model", None)  # nothing may get so far
    figures = r"0\.00 GiB for the model that guesses\), but .* Without the model that guesses it "
    with pytest.raises(ModelFileError, match=figures):
        await load_model(spec)
    monkeypatch.undo()
    monkeypatch.setattr(hosted, "free_memory", lambda _device: alone + predicted)
    model = await load_model(spec)
    await model.close()


def test_beside_a_gpu_it_needs_room_in_the_machines_own_memory() -> None:
    config = LlamaConfig(49152, 576, 1536, 30, 9, 3, 64, 8192, 1e-5, 1e5)
    load = Load(Path("m.gguf"), config, 8, 2048, is_on_gpu=True, draft=config)
    assert footprint(load, "bf16") == footprint(replace(load, draft=None), "bf16")
    needed = draft_bytes(load, "bf16")
    require_draft_room(load, "bf16", needed)
    with pytest.raises(ModelFileError, match=r"guesses for m\.gguf needs 0\.6\d GiB"):
        require_draft_room(load, "bf16", needed - 1)


def test_other_tokens_and_too_short_a_context_are_refused(make_gguf: Make, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(model_files.gguf_bytes())
    path = make_gguf()
    base = read_model(path)
    with pytest.raises(ModelFileError, match="very same vocabulary"):
        read_draft_model(other, base, 16)
    with pytest.raises(ModelFileError, match="made for 128 tokens, and answers may have 129"):
        read_draft_model(path, base, 129)
