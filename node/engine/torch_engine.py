"""The engine that computes: schedule, build the batch, run the model, sample.

Knows how scheduler, model, cache and sampling fit together; must not know files, text or threads.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from node.engine.adapters.registry import AdapterSet, AdapterUses
from node.engine.base import Ended, EngineRequest, EngineStatistics, PageOwner, StepOutput
from node.engine.batch import CPU, Chunk, adapter_column
from node.engine.drawing import Draw, draw
from node.engine.errors import EngineFailed, UnknownAdapter
from node.engine.outputs import with_likelihoods
from node.engine.page_exchange import PageExchange
from node.engine.runner import RankingRunner, RunnableModel, Runner
from node.engine.scheduler import Scheduler, SchedulerLimits
from node.engine.selection import Selection, follow, is_drawn, likeliest_of, scored, settled
from node.engine.sequence import Work
from node.engine.speculation.costs import StepCosts
from node.engine.speculation.drafts import Drafter
from node.engine.speculation.lookup import PromptLookup
from node.engine.speculation.speculator import Speculator
from node.engine.speculation.store import SuffixStore

SpeculationChoice = Literal["auto", "off"]
PROMPT_CHUNK_MIN = 32
_NEWEST = 0.2
"""Weight of the newest chunk in the rate at which prompts are computed."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How much an engine does at once, and for whom; see `SchedulerLimits`.

    0 threads leaves torch's setting. torch has one setting for the whole process, so the last
    engine built decides. `is_cache_quantised` keeps keys and values in int8 (`KeyValueCache`).
    `speculation` `auto` computes guessed tokens where that saves time (`Speculator`).
    """

    context_length: int
    cache_tokens: int
    running: int = 16
    step_tokens: int = 128
    threads: int = 0
    model: str = ""
    is_cache_shared: bool = False
    is_cache_quantised: bool = False
    speculation: SpeculationChoice = "auto"


class TorchEngine:
    """Implements `node.engine.base.Engine` with a model and its cache on one device."""

    def __init__(
        self,
        model: RunnableModel,
        options: EngineOptions,
        adapters: AdapterSet | None = None,
        *,
        drafters: Sequence[Drafter] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Reserve the cache. `options.context_length` must be within the model's positions.

        Requests can have those `adapters` that are loaded when they come. `drafters` guess besides
        those that every engine has; `clock`, in seconds, is for learning what steps cost.
        """
        if options.threads:
            torch.set_num_threads(options.threads)
        self._runner: Runner | None = model.open(
            options.cache_tokens, is_cache_quantised=options.is_cache_quantised
        )
        self._limits = SchedulerLimits(
            context_length=options.context_length,
            cache_tokens=options.cache_tokens,
            running=options.running,
            step_tokens=options.step_tokens,
            vocabulary_size=model.config.vocabulary_size,
            model=options.model,
            is_cache_shared=options.is_cache_shared,
        )
        self._adapters = adapters or AdapterSet(model.config, model.dtype, model.device)
        self._uses = AdapterUses(self._adapters)
        self._clock = clock
        self._costs = StepCosts()
        self._prompt_rate = 0.0
        speculation = None
        if options.speculation == "auto":
            drafters = (PromptLookup(), SuffixStore(), *drafters)
            speculation = Speculator(drafters, self._costs, clock)
        self._scheduler = Scheduler(self._limits, speculation)

    def __repr__(self) -> str:
        return f"<TorchEngine {self._scheduler!r}>"

    @property
    def context_length(self) -> int:
        """The most tokens, prompt and answer together, that one request can have."""
        return self._limits.longest

    def submit(self, request: EngineRequest) -> None:
        """As `Scheduler.submit`; `UnknownAdapter` if the request's is not loaded."""
        self._scheduler.submit(request)
        if request.adapter is not None:
            try:
                self._uses.begin(request.request_id, request.adapter.digest)
            except UnknownAdapter:
                self._scheduler.cancel(request.request_id)
                raise

    def cancel(self, request_id: str) -> None:
        """As `Scheduler.cancel`."""
        self._scheduler.cancel(request_id)
        self._uses.end(request_id)

    def step(self) -> Sequence[StepOutput]:
        """Run one batch. `EngineFailed` if the model yields no numbers or was closed."""
        outputs: list[StepOutput] = [*self._scheduler.ended_on_arrival()]
        # Whoever has the same adapter side by side; those without one first, as they came.
        work = sorted(
            self._scheduler.schedule(),
            key=lambda item: self._uses.order(item.sequence.request.request_id),
        )
        if work:
            scores = self._run(work)
            chosen = _sample(scores, work)
            outputs += _advance(self._scheduler, work, chosen)
        for output in outputs:
            if isinstance(output, Ended):
                self._uses.end(output.request_id)
        return outputs

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return self._scheduler.has_work

    def statistics(self) -> EngineStatistics:
        """What is going on now."""
        return replace(self._scheduler.statistics(), prompt_rate=self._prompt_rate)

    def exchange(self, owner: PageOwner, tokens: Sequence[int]) -> PageExchange:
        """The base model's pages of `tokens`; `EngineFailed` if the engine was closed."""
        if self._runner is None:
            raise EngineFailed("The engine was closed.")
        table = self._scheduler.table_of(owner)
        return PageExchange(self._scheduler.book, self._runner, table, tokens)

    def close(self) -> None:
        """Free weights and cache; `step` fails from now on."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _run(self, work: Sequence[Work]) -> "_Scores":
        """Run the model, and note what that took if it was a step without chunks of prompts."""
        if self._runner is None:
            raise EngineFailed("The engine was closed.")
        started = self._clock()
        chunks = [
            Chunk(
                token_ids=item.token_ids,
                position=item.sequence.computed,
                pages=item.sequence.table.pages,
                logits=item.logits,
                adapter=self._uses.handle(item.sequence.request.request_id),
                adapter_from=item.sequence.table.scope.adapter_from,
            )
            for item in work
        ]
        plan = self._adapters.plan(adapter_column(chunks))
        if isinstance(self._runner, RankingRunner):
            scores = _Scores(*self._runner.ranked(chunks, plan))
        else:
            logits = self._runner.run(chunks, plan)
            scores = _Scores(logits, likeliest_of(logits))
        if any(token < 0 for token in scores.likeliest):
            raise EngineFailed("The model's output is not a number: its weights may be damaged.")
        seconds = self._clock() - started
        if all(item.count == 1 for item in work):
            self._costs.learn(sum(1 + len(item.drafts) for item in work), seconds)
        else:
            self._learn_rate(sum(item.count for item in work), seconds)
        return scores

    def _learn_rate(self, tokens: int, seconds: float) -> None:
        """Chunks too small to say much are left out."""
        if tokens < PROMPT_CHUNK_MIN or seconds <= 0:
            return
        rate = tokens / seconds
        self._prompt_rate += (rate - self._prompt_rate) * (_NEWEST if self._prompt_rate else 1.0)


@dataclass(frozen=True, slots=True)
class _Scores:
    """`logits` [rows, vocabulary], on any device, and the id of the largest in each row."""

    logits: Tensor
    likeliest: list[int]


def _sample(scores: _Scores, work: Sequence[Work]) -> list[list[Selection]]:
    """The new tokens of each item that wants one, and the forced ones of those that have some."""
    chosen: list[list[Selection]] = []
    drawn = _drawn(scores.logits, work) if scores.logits.device != CPU else {}
    start = 0
    for item in work:
        stop = start + item.logits
        if start in drawn:
            tokens = [drawn[row] for row in range(start, stop)]
            chosen.append(settled(tokens, item.drafts))
        elif item.sequence.request.forced:
            rows = scores.logits[start:stop]
            chosen.append(scored(rows, item.sequence.request, item.position))
        elif item.wants_token:
            request = item.sequence.request
            answer = item.sequence.tokens[len(request.prompt) :]
            logits, likeliest = scores.logits[start:stop], scores.likeliest[start:stop]
            chosen.append(follow(logits, likeliest, request, answer, item.drafts))
        start = stop
    return chosen


def _drawn(logits: Tensor, work: Sequence[Work]) -> dict[int, int]:
    """The tokens of those rows that can be drawn where the logits are, many at a time."""
    draws: list[Draw] = []
    row = 0
    for item in work:
        request, position = item.sequence.request, item.sequence.answer_length
        if item.logits and is_drawn(request):
            draws += [Draw(row + n, request.sampling, position + n) for n in range(item.logits)]
        row += item.logits
    if not draws:
        return {}
    return dict(zip([one.row for one in draws], draw(logits, draws), strict=True))


def _advance(
    scheduler: Scheduler, work: Sequence[Work], chosen: Sequence[Sequence[Selection]]
) -> list[StepOutput]:
    """`Scheduler.advance`, and the likelihoods on the tokens of those who asked."""
    telling = [item for item in work if item.wants_token or item.sequence.request.forced]
    found = {
        (item.sequence.request.request_id, item.position + depth): selection.likelihood
        for item, selections in zip(telling, chosen, strict=True)
        for depth, selection in enumerate(selections)
        if selection.likelihood is not None
    }
    tokens = [
        [selection.token_id for selection in selections]
        for item, selections in zip(telling, chosen, strict=True)
        if item.wants_token
    ]
    return with_likelihoods(scheduler.advance(work, tokens), found)
