"""A small model from a file that guesses for another one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from node.engine.base import EngineRequest, Generated
from node.hosting.draft_model import load_draft_model
from node.hosting.hosted import HostedSpec, load_model
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
    draft = load_draft_model(path, read_model(path), "fp32", 128, 256)
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


def test_other_tokens_and_too_short_a_context_are_refused(make_gguf: Make, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(model_files.gguf_bytes())
    path = make_gguf()
    base = read_model(path)
    with pytest.raises(ModelFileError, match="very same vocabulary"):
        load_draft_model(other, base, "fp32", 16, 32)
    with pytest.raises(ModelFileError, match="made for 128 tokens, and answers may have 129"):
        load_draft_model(path, base, "fp32", 129, 256)
