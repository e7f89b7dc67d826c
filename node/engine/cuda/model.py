"""A decoder on a GPU: eager torch's weights and pages, computed by the fused step.

Knows graphs, and when eager torch has to do a step instead; must not know requests or sampling.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from node.engine.adapters.plan import AdapterPlan
from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.config import LlamaConfig
from node.engine.cuda.graphs import Graphs
from node.engine.cuda.layout import (
    LADDER,
    LOGITS_MAX,
    TABLES_MAX,
    PageTables,
    StepShape,
    StepTable,
    blocks_for,
    rung,
    table_width,
)
from node.engine.cuda.shape import check_shape
from node.engine.cuda.step import Step
from node.engine.errors import EngineFailed
from node.engine.model import LlamaModel
from node.engine.page_block import PageBlock
from node.engine.pages import pages_for
from node.engine.selection import likeliest_of


class CudaModel:
    """Weights of an eager model on a device, ready for the fused step."""

    def __init__(
        self,
        eager: LlamaModel,
        *,
        has_graphs: bool = True,
        overlaps: bool = False,
        warm: int = 0,
    ) -> None:
        """`CudaUnfit` if the fused step does not know a model of this kind.

        Graphs of steps of up to `warm` tokens are recorded when the model is opened, all others
        when they are first needed. Without graphs every kernel is launched by itself.
        """
        check_shape(eager.config)
        self.eager = eager
        self.has_graphs = has_graphs
        self.overlaps = overlaps
        self.warm = warm

    @property
    def config(self) -> LlamaConfig:
        """The shape."""
        return self.eager.config

    @property
    def dtype(self) -> torch.dtype:
        """As `RunnableModel.dtype`."""
        return self.eager.dtype

    @property
    def device(self) -> torch.device:
        """Where weights, pages and adapters are."""
        return self.eager.device

    @property
    def size(self) -> int:
        """Bytes of weights and tables."""
        return self.eager.size

    def open(self, cache_tokens: int, *, is_cache_quantised: bool = False) -> "CudaRunner":
        """This model with pages for `cache_tokens` tokens. `CudaUnfit` for keys in int8."""
        cache = KeyValueCache(
            self.config,
            cache_tokens,
            self.dtype,
            is_quantised=is_cache_quantised,
            device=self.device,
        )
        runner = CudaRunner(self, cache, pages_for(cache_tokens))
        runner.warm_up(self.warm)
        return runner


class CudaRunner:
    """Implements `RankingRunner`: pages on the device, and steps over them."""

    def __init__(self, model: CudaModel, cache: KeyValueCache, pages: int) -> None:
        device = model.device
        self._held: tuple[CudaModel, KeyValueCache] | None = (model, cache)
        width = table_width(model.eager.rotary.positions, pages)
        self._tables = PageTables(TABLES_MAX, width, pages, device)
        self._table = StepTable(self._tables, model.config.vocabulary_size, device)
        with torch.inference_mode():
            self._step = Step(
                model.eager,
                cache,
                self._table.device,
                self._tables.device,
                overlaps=model.overlaps,
            )
        self._graphs = Graphs() if model.has_graphs else None
        pinned = device.type == "cuda"
        self._chosen = torch.zeros(LOGITS_MAX, dtype=torch.int32, pin_memory=pinned)

    def run(self, chunks: Sequence[Chunk], adaptation: AdapterPlan | None = None) -> Tensor:
        """As `Runner.run`; on the device, and gone after the next run. `EngineFailed` if closed."""
        return self.ranked(chunks, adaptation)[0]

    @torch.inference_mode()
    def ranked(
        self, chunks: Sequence[Chunk], adaptation: AdapterPlan | None = None
    ) -> tuple[Tensor, list[int]]:
        """As `RankingRunner.ranked`. Steps with adapters are computed by eager torch."""
        held = self._open()
        shape = None if adaptation else self._table.write(chunks, self._step.span)
        if shape is None:
            return self._eagerly(*held, chunks, adaptation)
        self._tables.send()
        if shape.logits > LOGITS_MAX:
            self._body(shape)
            return self._in_parts(shape.logits)
        self._compute(shape)
        # Also without logits: the host's tables may be written again only after they were copied.
        self._wait()
        return self._step.logits[: shape.logits], self._chosen[: shape.logits].tolist()

    @torch.inference_mode()
    def warm_up(self, most: int) -> None:
        """Record the graphs of steps of up to `most` tokens: of one token a sequence, and of many.

        Without graphs, have the kernels compiled.
        """
        for size in LADDER:
            if size > most:
                return
            # Nothing is written, nothing is read: all rows are beyond the last token.
            self._table.clear(size)
            for span in {1, self._step.span}:
                self._compute(StepShape(size, blocks_for(size, span), span, size))

    def recorded(self, tokens: int) -> Callable[[], None]:
        """What replays a decode step of so many tokens, once there was one: for measuring."""
        if self._graphs is None:
            raise ValueError("nothing is recorded")
        return self._graphs.replay_of(("step", rung(tokens), 1))

    def _compute(self, shape: StepShape) -> None:
        """All of a step: as one recording where all tokens want logits, or nearly all."""
        size = rung(shape.logits) if shape.logits else 0
        if size == shape.tokens and shape.blocks == blocks_for(shape.tokens, shape.span):
            self._launch(("step", size, shape.span), lambda: self._whole(shape, size))
            return
        self._body(shape)
        if size:
            self._launch(("head", size), lambda: self._head(size))

    def _body(self, shape: StepShape) -> None:
        if shape.blocks == blocks_for(shape.tokens, shape.span):
            self._launch(("body", shape.tokens, shape.span), lambda: self._layers(shape))
        else:  # hardly ever: not worth a recording
            self._layers(shape)

    def _whole(self, shape: StepShape, size: int) -> None:
        self._layers(shape)
        self._head(size)

    def _layers(self, shape: StepShape) -> None:
        self._table.send(shape.tokens)
        self._step.body(shape)

    def _head(self, size: int) -> None:
        self._step.head(size)
        self._chosen[:size].copy_(self._step.chosen[:size], non_blocking=True)

    def _in_parts(self, wanted: int) -> tuple[Tensor, list[int]]:
        """More rows than there is room for at once."""
        logits: list[Tensor] = []
        chosen: list[int] = []
        for first in range(0, wanted, LOGITS_MAX):
            count = min(LOGITS_MAX, wanted - first)
            self._step.head(count, first)
            logits.append(self._step.logits[:count].clone())
            chosen += self._step.chosen[:count].tolist()
        return torch.cat(logits), chosen

    def _eagerly(
        self,
        model: CudaModel,
        cache: KeyValueCache,
        chunks: Sequence[Chunk],
        adaptation: AdapterPlan | None,
    ) -> tuple[Tensor, list[int]]:
        batch = build_batch(chunks, model.dtype, model.device)
        logits = model.eager.forward(batch, cache, adaptation)
        return logits, likeliest_of(logits)

    def _launch(self, key: tuple[object, ...], launch: Callable[[], None]) -> None:
        if self._graphs is None:
            launch()
        else:
            self._graphs.launch(key, launch)

    def _wait(self) -> None:
        if self._chosen.is_pinned():
            torch.cuda.current_stream().synchronize()

    def export_pages(self, pages: Sequence[int]) -> PageBlock:
        """As `Runner`."""
        return self._open()[1].export_pages(pages)

    def import_pages(self, pages: Sequence[int], block: PageBlock) -> None:
        """As `Runner`."""
        self._open()[1].import_pages(pages, block)

    def close(self) -> None:
        """As `Runner.close`."""
        self._held = None

    def _open(self) -> tuple[CudaModel, KeyValueCache]:
        if self._held is None:
            raise EngineFailed("The engine was closed.")
        return self._held
