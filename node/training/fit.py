"""Learning B: AdamW with warm-up and decay over batches of examples.

Knows the optimiser and the loss; must not know files, domains or how an adapter is packed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from node.training.base import FrozenBase
from node.training.batches import Batch, Weighting, training_batches
from node.training.examples import TokenRow
from node.training.forward import applied, hidden_states
from node.training.low_rank import AdapterShape, LowRankParameters
from node.training.step_graphs import StepGraphs


@dataclass(frozen=True, slots=True)
class Settings:
    """How an adapter is trained. `longest` in tokens; `warm_up` is a share of all steps.

    After it the rate falls to 0 in a line or a cosine. `dropped` is the share of the numbers
    between A and B that is left out at random. An `activated` adapter is on from the assistant's
    header only. `steps_max` ends early, with the decay placed accordingly (0: all epochs).
    """

    learning_rate: float = 5e-3
    epochs: int = 2
    batch: int = 64
    longest: int = 768
    warm_up: float = 0.08
    decay: Literal["linear", "cosine"] = "linear"
    clip: float = 1.0
    dropped: float = 0.0
    weighting: Weighting = "token"
    steps_max: int = 0
    activated: bool = False
    shape: AdapterShape = field(default_factory=AdapterShape)


@dataclass(frozen=True, slots=True)
class Progress:
    """After an epoch: how many steps of how many, and the mean loss of the epoch."""

    epoch: int
    step: int
    steps: int
    loss: float


RowsOf = Callable[[int], Sequence[TokenRow]]
"""The rows of an epoch: the same number in each, though they may be varied."""
Watch = Callable[[Progress, LowRankParameters], None]
"""Hears after each epoch."""


class Trainer:
    """Trains one adapter after the other on a base.

    On a GPU the steps are captured as graphs, one for each shape of batch, which later trainings
    use again: launching thousands of small kernels by hand takes longer than computing them.
    """

    def __init__(self, base: FrozenBase, shape: AdapterShape, *, is_captured: bool) -> None:
        """For adapters of one `shape`. Only CUDA devices can capture."""
        self._base = base
        self._adapter = LowRankParameters(base.config, shape, base.device, base.dtype)
        self._rate = torch.zeros((), device=base.device)
        is_cuda = base.device.type == "cuda"
        self._optimiser = torch.optim.AdamW(
            list(self._adapter),
            lr=self._rate if is_cuda else 0.0,
            weight_decay=0.0,
            fused=is_cuda,
            capturable=is_cuda,
        )
        self._graphs = StepGraphs() if is_captured else None

    def fit(
        self,
        rows_of: RowsOf,
        settings: Settings,
        seed: int,
        watch: Watch = lambda _progress, _adapter: None,
    ) -> LowRankParameters:
        """A trained adapter, from nothing.

        The same arguments give the same adapter, on a GPU up to the order of its additions. torch's
        own generator is seeded: what is left out at random is drawn from it.
        """
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        self._reset()
        rows = rows_of(0)
        per_epoch = max(1, len(rows) // settings.batch)
        steps = settings.epochs * per_epoch
        steps = min(steps, settings.steps_max) if settings.steps_max else steps
        step = 0
        for epoch in range(settings.epochs):
            losses: list[Tensor] = []
            rows = rows_of(epoch) if epoch else rows
            for batch in self._batches(rows, settings, rng):
                if step == steps:
                    break
                self._set_rate(settings.learning_rate * rate(step, steps, settings))
                losses.append(self._step(batch, settings))
                step += 1
            if losses:
                loss = float(torch.stack(losses).mean())
                watch(Progress(epoch, step, steps, loss), self._adapter)
        return self._adapter.copy()

    def _batches(
        self, rows: Sequence[TokenRow], settings: Settings, rng: np.random.Generator
    ) -> Iterator[Batch]:
        few = self._graphs is not None
        return training_batches(rows, settings.batch, settings.weighting, rng, few_shapes=few)

    def _step(self, batch: Batch, settings: Settings) -> Tensor:
        if self._graphs is None:
            return self._update(batch.to(self._base.device), settings)
        kind = (settings.activated, settings.dropped, settings.clip, *batch.shape)
        update = partial(self._update, settings=settings)
        return self._graphs.run(kind, batch, self._base.device, update)

    def _update(self, batch: Batch, settings: Settings) -> Tensor:
        """One step on a batch that lies on the device; the loss before it, still there."""
        base, begins = self._base, batch.begins if settings.activated else None
        on = applied(self._adapter, begins, batch.ids.shape[1], settings.dropped)
        hidden = hidden_states(base, batch.ids, on).index_select(0, batch.where)
        surprise = cross_entropy((hidden @ base.head.t()).float(), batch.targets, reduction="none")
        loss = (surprise * batch.weights).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self._adapter), settings.clip)
        self._optimiser.step()
        return loss.detach()

    def _set_rate(self, learning_rate: float) -> None:
        if self._base.device.type == "cuda":
            self._rate.fill_(learning_rate)
            return
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate

    def _reset(self) -> None:
        """In place: graphs hold on to the tensors."""
        self._optimiser.zero_grad(set_to_none=True)
        if self._graphs is not None:
            self._graphs.forget_many()
        with torch.no_grad():
            for b in self._adapter:
                b.zero_()
            for state in self._optimiser.state.values():
                for tensor in state.values():
                    tensor.zero_()


def rate(step: int, steps: int, settings: Settings) -> float:
    """The share of the learning rate at `step` of `steps`."""
    warm = max(1, round(settings.warm_up * steps))
    if step < warm:
        return (step + 1) / warm
    left = (steps - step) / max(1, steps - warm)
    return left if settings.decay == "linear" else 0.5 * (1 - math.cos(math.pi * left))
