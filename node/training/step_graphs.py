"""Training steps recorded once for each shape of batch and played again, on a CUDA device.

Knows CUDA graphs; must not know models or losses.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from node.training.batches import Batch

_FULL = 0.4
"""With more of the memory in use, recordings of an earlier training are dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    batch: Batch
    loss: Tensor


class StepGraphs:
    """Steps by kind. All recordings share one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._seen: set[Hashable] = set()
        self._recorded: dict[Hashable, _Recorded] = {}

    def run(
        self,
        kind: Hashable,
        batch: Batch,
        device: torch.device,
        update: Callable[[Batch], Tensor],
    ) -> Tensor:
        """The loss of `update` on `batch`. `kind` tells what may not share a recording.

        The first step of a kind is taken as it is, which loads the kernels; the second is recorded.
        """
        if kind not in self._seen:
            self._seen.add(kind)
            return update(batch.to(device))
        if kind not in self._recorded:
            self._recorded[kind] = self._record(batch.to(device), update)
        found = self._recorded[kind]
        found.batch.copy_from(batch)
        found.graph.replay()
        return found.loss.clone()

    def forget_many(self) -> None:
        """Drop all recordings if memory has become short, so that other kinds find room."""
        free, total = torch.cuda.mem_get_info()
        if free < (1 - _FULL) * total:
            self._recorded.clear()
            self._pool = torch.cuda.graph_pool_handle()
            torch.cuda.empty_cache()

    def _record(self, batch: Batch, update: Callable[[Batch], Tensor]) -> _Recorded:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss = update(batch)
        return _Recorded(graph, batch, loss)
