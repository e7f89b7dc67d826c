"""Launches that are recorded once and replayed as one (CUDA graphs).

Knows streams and recordings; must not know what is launched. What is launched must read and write
the same memory every time, and take none while it is recorded.
"""

from collections.abc import Callable, Hashable

import torch


class Graphs:
    """Recordings by key, for one device and one thread at a time."""

    def __init__(self) -> None:
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._graphs)

    def launch(self, key: Hashable, launch: Callable[[], None]) -> None:
        """Replay what was recorded under `key`; the first time launch it, and record it for later.

        Launching before recording has kernels compiled, which a recording could not bear.
        """
        graph = self._graphs.get(key)
        if graph is None:
            launch()
            self._graphs[key] = self._recorded(launch)
        else:
            graph.replay()

    def replay_of(self, key: Hashable) -> Callable[[], None]:
        """Replays what was recorded under `key`; `KeyError` if nothing was."""
        return self._graphs[key].replay

    def _recorded(self, launch: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        self._stream.wait_stream(before)
        with torch.cuda.stream(self._stream):
            # Other threads may allocate meanwhile: an adapter that is loaded, another model.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                launch()
            finally:
                graph.capture_end()
        before.wait_stream(self._stream)
        return graph
