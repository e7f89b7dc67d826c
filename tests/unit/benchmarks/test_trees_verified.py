"""A tree of guesses in one step says what transformers says: fp32, with every other feature.

Guesses come from somebody who knows the answer and hides it among wrong branches, so that the right
path is rarely the first one.
"""

import random
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from node.engine.adapters.registry import AdapterSet
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.hosting.read import read_model
from protocols.messages.ask import ChatMessage
from tests.effort import few
from tests.integration.test_engine_identity import greedy, transformers_model
from tests.unit.node.engine.adapters.test_adapter_identity import (
    KINDS,
    Case,
    adapters,
    cases,
    model,
)
from tests.unit.node.engine.conftest import TINY
from tests.unit.node.engine.test_paged_identity import named, tiny
from tests.unit.node.hosting.conftest import trained_bpe
from tests.unit.node.hosting.family_models import CASES, build
from tests.unit.node.hosting.test_families import prompts
from trees_verified import Tree, TreeReader, answer_by_trees, tree_mask

FEATURES = ("scattered", "chunked", "cached", "preempted")
SETS = [set(names) for size in (0, 1, 2, 4) for names in combinations(FEATURES, size)]


class Hiding:
    """Makes trees in which the answer is one path of several; `moved` counts how often the right
    path was not the first.
    """

    def __init__(self, prompt: Sequence[int], answer: Sequence[int], seed: int = 1) -> None:
        self.text = [*prompt, *answer]
        self.rng = random.Random(seed)
        self.moved = 0

    def __call__(self, tokens: Sequence[int]) -> Tree:
        assert list(tokens) == self.text[: len(tokens)]
        rng = self.rng
        guesses: list[int] = []
        parents: list[int] = []
        at = -1
        for right in self.text[len(tokens) :][: rng.randrange(6)]:
            branches = [right, *rng.sample([n for n in range(3, 61) if n != right], k=3)]
            branches = branches[rng.random() < 0.15 :]
            rng.shuffle(branches)
            first = len(guesses)
            guesses += branches
            parents += [at] * len(branches)
            # The others go on too, wrongly; children of one token need not stand side by side.
            guesses.append(right)
            parents.append(rng.randrange(first, len(guesses) - 1))
            if right not in branches or parents[-1] == first + branches.index(right):
                break
            at = first + branches.index(right)
            self.moved += at != first
        return Tree(guesses, parents)


def pages_of(features: set[str], seed: int) -> list[int]:
    """Of a cache of 24."""
    pages = list(range(24))
    if "scattered" in features:
        random.Random(seed).shuffle(pages)
    return pages[:12]


def answered(
    model: LlamaModel,
    prompt: Sequence[int],
    answer: Sequence[int],
    features: set[str],
    adaptation: Callable[[Sequence[int]], Any] = lambda _positions: None,
) -> list[int]:
    """Of `model`, by trees that know `answer`; some were right, on paths that were not first."""
    cache = KeyValueCache(model.config, 24 * 16, torch.float32)
    guess, chunk = Hiding(prompt, answer), 7 if "chunked" in features else 256
    reader = TreeReader(model, cache, pages_of(features, 1), adaptation)
    found: list[int] = []
    if "cached" in features:
        # Somebody had the same prompt: its pages are used, and only the last token is read.
        reader.read([*prompt, 0], chunk)
        reader.done = len(prompt)
    steps = 0
    if "preempted" in features:
        found, steps = answer_by_trees(reader, prompt, len(answer) // 2, guess, chunk)
        reader = TreeReader(model, cache, pages_of(features, 2)[::-1], adaptation)
    rest = len(answer) - len(found)
    more, further = answer_by_trees(reader, [*prompt, *found], rest, guess, chunk)
    assert steps + further < len(answer)
    assert guess.moved > 0
    return found + more


def test_a_guess_sees_what_it_follows_and_itself() -> None:
    tree = Tree((7, 8, 9, 7), (-1, -1, 0, 2))
    mask = tree_mask(tree, 3, torch.float32)
    seen = [[column for column in range(7) if row[column] == 0] for row in mask]
    assert seen == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 3, 5], [0, 1, 2, 3, 5, 6]]
    assert tree.depths == [1, 1, 2, 3]


@pytest.mark.parametrize("features", few(SETS, 4), ids=named)
def test_answers_by_trees_are_those_of_transformers(features: set[str]) -> None:
    base, asked, wanted = tiny(2)
    for prompt, answer in zip(asked, wanted, strict=True):
        assert answered(base, prompt, answer, features) == answer


@pytest.mark.slow
@pytest.mark.parametrize("features", [set(), set(FEATURES)], ids=named)
@pytest.mark.parametrize("is_packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_an_adapter_or_packed_weights_too(
    kind: str, is_packed: bool, features: set[str]
) -> None:
    loaded = AdapterSet(TINY, torch.float32)
    for adapter in adapters(kind):
        loaded.load(adapter)

    def adaptation(case: Case) -> Callable[[Sequence[int]], Any]:
        handle = loaded.acquire(case.adapter.digest) if case.adapter else -1
        return lambda positions: loaded.plan([handle if p >= case.start else -1 for p in positions])

    for case in cases(kind, is_packed):
        got = answered(model(is_packed), case.prompt, case.answer, features, adaptation(case))
        assert got == case.answer


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_each_family(name: str, tmp_path: Path) -> None:
    """With windows a guess reaches as far back as its depth says, not its place in the step."""
    judge = build(CASES[name])
    family = saved_and_read(judge, tmp_path)
    for prompt in prompts()[::2]:
        ids = torch.tensor([prompt])
        output = judge.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        answer = output[0, len(prompt) :].tolist()
        assert answered(family, prompt, answer, set(FEATURES)) == answer


@pytest.mark.slow
@pytest.mark.integration
def test_the_real_model(smollm2_path: Path) -> None:
    judge, weights = transformers_model(smollm2_path), read_model(smollm2_path)
    prompt = weights.tokenizer.encode_chat([ChatMessage("user", "Why is the sky blue?")])
    answer = greedy(judge, prompt)[:16]
    model = LlamaModel(weights.config, weights.tensors, torch.float32, 256)
    assert answered(model, prompt, answer, set(FEATURES)) == answer


def saved_and_read(judge: Any, folder: Path) -> LlamaModel:
    judge.save_pretrained(folder)
    trained_bpe().save(str(folder / "tokenizer.json"))
    weights = read_model(folder)
    return LlamaModel(weights.config, weights.tensors, torch.float32, 256)
