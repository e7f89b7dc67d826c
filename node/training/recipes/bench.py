"""A base on a device, with which adapters are trained, scored and saved.

Knows models and devices; must not know domains' sets or the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from node.hosting.read import read_model
from node.training.base import FrozenBase, load_base
from node.training.domains.math import final_number
from node.training.examples import ChatFormat, Example
from node.training.fit import Trainer
from node.training.generate import generate
from node.training.low_rank import AdapterShape, LowRankParameters
from node.training.score import Scores, score

LONGEST = 768
"""Tokens of an example, prompt included, in training and in scoring."""
_TOGETHER = 700


@dataclass(frozen=True, slots=True)
class Bench:
    """`digest` names the base's files. `is_captured` says that training steps become graphs.

    Answers that are asked for end after `answer_max` tokens.
    """

    base: FrozenBase
    form: ChatFormat
    digest: str
    is_captured: bool
    answer_max: int = 300

    def trainer(self, shape: AdapterShape) -> Trainer:
        """For adapters of one shape."""
        return Trainer(self.base, shape, is_captured=self.is_captured)

    def score(
        self,
        adapter: LowRankParameters | None,
        examples: Sequence[Example],
        candidates: Sequence[str] = (),
        *,
        activated: bool = False,
    ) -> Scores:
        """As `score`. With `candidates`, only the first token of an answer counts."""
        if candidates:
            examples = [_first_only(example) for example in examples]
        return score(
            self.base,
            adapter,
            self.form.rows(examples, LONGEST),
            activated=activated,
            candidates=self.form.first_ids(candidates) if candidates else (),
        )

    def is_exact(
        self,
        adapter: LowRankParameters | None,
        examples: Sequence[Example],
        *,
        activated: bool = False,
    ) -> NDArray[np.bool_]:
        """Of each example, whether the final number of a greedy answer is the right one."""
        answers = self.answers(adapter, examples, activated=activated)
        given = [final_number(answer) for answer in answers]
        right = [final_number(example.answer) for example in examples]
        return np.array([a == b != "" for a, b in zip(given, right, strict=True)])

    def answers(
        self,
        adapter: LowRankParameters | None,
        examples: Sequence[Example],
        *,
        activated: bool = False,
    ) -> list[str]:
        """Greedy answers to the prompts of `examples`."""
        found: list[str] = []
        for at in range(0, len(examples), _TOGETHER):
            rows = self.form.rows(examples[at : at + _TOGETHER], LONGEST)
            ids = generate(
                self.base,
                adapter,
                rows,
                end=self.form.end,
                longest=self.answer_max,
                activated=activated,
            )
            found += [self.form.decode(one) for one in ids]
        return found


def open_bench(model: Path, device: str) -> Bench:
    """The model at `model` on `device` (`cuda`, `cpu`): bf16 on a GPU, fp32 on a CPU."""
    weights = read_model(model)
    place = torch.device(device)
    is_cuda = place.type == "cuda"
    dtype = torch.bfloat16 if is_cuda else torch.float32
    base = load_base(weights.config, weights.tensors, place, dtype)
    return Bench(base, ChatFormat(weights.tokenizer), weights.digest, is_captured=is_cuda)


def mean_of(adapters: Sequence[LowRankParameters]) -> LowRankParameters:
    """All share their A, so the mean of their B's is an adapter too (arXiv 2203.05482)."""
    mean = adapters[0].copy()
    mean.copy_from(torch.stack(bs).mean(dim=0) for bs in zip(*adapters, strict=True))
    return mean


def _first_only(example: Example) -> Example:
    return Example(example.prompt, example.answer, example.source, example.system, is_whole=False)
