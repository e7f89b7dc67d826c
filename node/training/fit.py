"""Learning B: AdamW with warm-up and decay over batches of examples.

Knows the optimiser and the loss; must not know files, domains or how an adapter is packed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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


def fit(
    base: FrozenBase,
    rows_of: RowsOf,
    settings: Settings,
    seed: int,
    watch: Watch = lambda _progress, _adapter: None,
) -> LowRankParameters:
    """A trained adapter. The same arguments give the same adapter on the same machine.

    torch's own generator is seeded: what is left out at random is drawn from it.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    adapter = LowRankParameters(base.config, settings.shape, base.device, base.dtype)
    parameters = list(adapter)
    optimiser = torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        weight_decay=0.0,
        fused=base.device.type == "cuda",
    )
    per_epoch = max(1, len(rows_of(0)) // settings.batch)
    steps = settings.epochs * per_epoch
    steps = min(steps, settings.steps_max) if settings.steps_max else steps
    step = 0
    for epoch in range(settings.epochs):
        losses: list[Tensor] = []
        for batch in training_batches(rows_of(epoch), settings.batch, settings.weighting, rng):
            if step == steps:
                break
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * rate(step, steps, settings)
            losses.append(_step(base, adapter, optimiser, batch, settings))
            step += 1
        if losses:
            loss = float(torch.stack(losses).mean())
            watch(Progress(epoch, step, steps, loss), adapter)
    return adapter


def rate(step: int, steps: int, settings: Settings) -> float:
    """The share of the learning rate at `step` of `steps`."""
    warm = max(1, round(settings.warm_up * steps))
    if step < warm:
        return (step + 1) / warm
    left = (steps - step) / max(1, steps - warm)
    return left if settings.decay == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def _step(
    base: FrozenBase,
    adapter: LowRankParameters,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    settings: Settings,
) -> Tensor:
    """One update; the loss before it, still on the device."""
    moved = batch.to(base.device)
    begins = moved.begins if settings.activated else None
    length = moved.ids.shape[1]
    on = applied(adapter, begins, length, settings.dropped)
    hidden = hidden_states(base, moved.ids, on)[moved.where]
    surprise = cross_entropy((hidden @ base.head.t()).float(), moved.targets, reduction="none")
    loss = (surprise * moved.weights).sum()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(list(adapter), settings.clip)
    optimiser.step()
    return loss.detach()
