"""What an engine calls once per step: a model together with its keys and values.

Knows the layout of a step's work only; `node.engine.model` computes it with torch,
`node.engine.native` with compiled code.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from node.engine.adapters.plan import AdapterPlan
from node.engine.batch import Chunk
from node.engine.config import LlamaConfig
from node.engine.page_block import PageBlock


class Runner(Protocol):
    """Used by one thread."""

    def run(self, chunks: Sequence[Chunk], adaptation: AdapterPlan | None = None) -> Tensor:
        """Logits fp32 `[rows, vocabulary]`, for the chunks that want some, in their order.

        `adaptation` is the plan for `adapter_column(chunks)`.
        Keys and values of all tokens go to the pages that their chunk names.
        """
        ...

    def export_pages(self, pages: Sequence[int]) -> PageBlock:
        """A copy of what lies in `pages`, in their order, on the CPU and in any float type."""
        ...

    def import_pages(self, pages: Sequence[int], block: PageBlock) -> None:
        """Write `block` into `pages`, converted to the type and layout of the cache."""
        ...

    def close(self) -> None:
        """Free pages and, if nothing else uses it, the model."""
        ...


@runtime_checkable
class RankingRunner(Runner, Protocol):
    """A runner that says itself which logit is the largest: all of them are far from the CPU."""

    def ranked(
        self, chunks: Sequence[Chunk], adaptation: AdapterPlan | None = None
    ) -> tuple[Tensor, list[int]]:
        """As `run`, and for each row the token of the largest logit; -1 if it is not a number.

        The logits are on the runner's device, and gone after its next run.
        """
        ...


class RunnableModel(Protocol):
    """Weights that are ready to compute."""

    @property
    def config(self) -> LlamaConfig:
        """The shape."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What adapters are held in."""
        ...

    @property
    def device(self) -> torch.device:
        """Where adapters are held."""
        ...

    @property
    def size(self) -> int:
        """Bytes of weights and tables."""
        ...

    def open(self, cache_tokens: int, *, is_cache_quantised: bool = False) -> Runner:
        """The model with pages for `cache_tokens` tokens."""
        ...
