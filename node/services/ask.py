"""Answers `Ask`: find the model, tokenise, check that it fits, let it in, stream what it says.

Knows hosted models behind `node.services.ports`; must not know streams or frames
(`node.services.ask_stream` carries its messages).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass

from node.engine.base import (
    Ended,
    EngineRequest,
    FinishReason,
    Generated,
    Matcher,
    StepOutput,
)
from node.engine.pages import PAGE_SIZE
from node.services.admission import Admission, Quotas
from node.services.likelihoods import likelihoods_of
from node.services.matching import Matching, check_matcher
from node.services.memory_ports import Recall, Recalled
from node.services.ports import Generation, ServedModel
from node.services.text import AnswerText
from node.services.turn import Turn
from protocols import limits
from protocols.errors import DeadlineExceeded, NotHere, TooLong
from protocols.features import features_of
from protocols.ids import PeerId, SpecialistId
from protocols.messages.ask import (
    Accepted,
    Ask,
    Chat,
    Finished,
    Progress,
    ServerMessage,
    Text,
    Tokens,
)
from protocols.ports import Allowance, Clock

PROGRESS_SECONDS = 0.5
"""How often a client hears that we live while no token is due."""
WAITING_PER_SLOT = 4
_LONG_PROMPT_CHARACTERS = 20_000


@dataclass(slots=True)
class Served:
    """Counters since start."""

    requests: int = 0
    tokens: int = 0


class AskService:
    """Implements `coordinator.ports.Answerer` with this node's own models.

    `allowance` says what a peer may use of them; without it, and for the node's own requests,
    there is no limit but what fits.
    """

    def __init__(
        self,
        models: Mapping[SpecialistId, ServedModel],
        clock: Clock,
        allowance: Callable[[PeerId], Allowance] | None = None,
    ) -> None:
        self._models = dict(models)
        self._clock = clock
        self._allowance = allowance
        self._quotas = Quotas()
        self._matching = Matching()
        self._inside: Counter[SpecialistId] = Counter()
        self._left = asyncio.Event()
        """Set, and another in its place, when a request leaves."""
        self._is_draining = False
        self._admission = {name: _admission_of(model) for name, model in models.items()}
        self.served = Served()

    def admission(self, specialist: SpecialistId) -> Admission:
        """The counts of one of our models."""
        return self._admission[specialist]

    def is_healthy(self, specialist: SpecialistId) -> bool:
        """Whether one of our models can answer."""
        model = self._models.get(specialist)
        return model is not None and model.healthy

    def add(self, model: ServedModel) -> None:
        """Answer for one more."""
        admission = _admission_of(model)
        admission.draining = self._is_draining
        self._admission[model.specialist] = admission
        self._models[model.specialist] = model

    def remove(self, specialist: SpecialistId) -> None:
        """Take no more requests for one of our models; `wait_left` waits for those inside."""
        self._models.pop(specialist, None)

    @property
    def inside(self) -> int:
        """Requests over all models whose last word is not said yet."""
        return self._inside.total()

    def drain(self) -> None:
        """Refuse new requests from now on; those inside go on."""
        self._is_draining = True
        for admission in self._admission.values():
            admission.draining = True

    async def wait_idle(self) -> None:
        """Until no request is inside."""
        while self.inside:
            await self._left.wait()

    async def wait_left(self, specialist: SpecialistId) -> None:
        """Until no request for `specialist` is inside, queued ones included."""
        while self._inside[specialist]:
            await self._left.wait()

    async def answer(
        self, ask: Ask, peer: PeerId | None = None, recall: Recall | None = None
    ) -> AsyncGenerator[ServerMessage, None]:
        """The messages of one answer; see `coordinator.ports.Answerer`.

        With `recall`, memory of the prompt may come from another peer.

        `peer` asks; None means this node itself. `Busy` if it has as many answers as it may have.
        An answer is cut at the tokens that the peer may have, with the reason `length`.
        """
        model = self._models.get(SpecialistId(ask.specialist))
        if model is None:
            raise NotHere(f"this peer does not host {ask.specialist!r}")
        model = model.plain if ask.on_base else model
        if not model.healthy:
            raise NotHere(f"{ask.specialist!r} has failed on this peer")
        allowed = self._allowance(peer) if peer and self._allowance else None
        quota = self._quota(peer, allowed, self._admission[model.specialist])
        with quota, self._counted(model.specialist):
            prompt = await _tokenise(model, ask)
            max_tokens = _room(
                model.context_length, len(prompt), ask, allowed.tokens if allowed else 0
            )
            matcher = await self._matching.matcher(model.tokenizer, ask)
            question = _Question(ask, prompt, max_tokens, matcher, recall)
            async with aclosing(self._admitted(model, question, peer)) as messages:
                async for message in messages:
                    yield message

    def _quota(
        self, peer: PeerId | None, allowed: Allowance | None, admission: Admission
    ) -> AbstractContextManager[None]:
        """Counted before anything is done for the peer: reading a long prompt is work too."""
        if peer is None or allowed is None:
            return nullcontext()
        return self._quotas.one(peer, allowed.answers, admission.retry_after())

    @contextmanager
    def _counted(self, specialist: SpecialistId) -> Iterator[None]:
        self._inside[specialist] += 1
        try:
            yield
        finally:
            self._inside[specialist] -= 1
            self._left.set()
            self._left = asyncio.Event()

    async def _admitted(
        self, model: ServedModel, question: "_Question", peer: PeerId | None
    ) -> AsyncGenerator[ServerMessage, None]:
        turn = Turn(self._admission[model.specialist], peer or "", self._clock)
        recalled: Recalled | None = None
        try:
            yield Accepted(
                len(question.prompt),
                model.context_length,
                model.model_digest,
                features_of(question.ask),
            )
            if question.recall is not None:
                recalled = question.recall.begin(question.ask, question.prompt, peer)
                # Its first look into the cache must not wait for a step of this very request.
                await asyncio.sleep(0)
            run = _Run(model, question, turn, self._clock, recalled)
            async with aclosing(run.messages()) as messages:
                async for message in messages:
                    if isinstance(message, Tokens) and not question.ask.forced:
                        self.served.tokens += len(message.ids)
                    yield message
            self.served.requests += 1
        finally:
            if recalled is not None:
                recalled.stop()
            turn.end()


async def _next_within(generation: Generation, seconds: float) -> StepOutput | None:
    try:
        async with asyncio.timeout(seconds):
            return await generation.next()
    except TimeoutError:
        return None


async def _tokenise(model: ServedModel, ask: Ask) -> tuple[int, ...]:
    match ask.prompt:
        case Chat(messages=messages, tools=tools):
            length = len(tools) + sum(len(message.content) for message in messages)
            if length > _LONG_PROMPT_CHARACTERS:
                return await asyncio.to_thread(model.tokenizer.encode_chat, messages, tools)
            return model.tokenizer.encode_chat(messages, tools)
        case Text(text=text):
            if len(text) > _LONG_PROMPT_CHARACTERS:
                return await asyncio.to_thread(model.tokenizer.encode_text, text)
            return model.tokenizer.encode_text(text)


def _admission_of(model: ServedModel) -> Admission:
    return Admission(model.slots, WAITING_PER_SLOT * model.slots)


def _room(context_length: int, prompt_tokens: int, ask: Ask, tokens_max: int) -> int:
    """How many tokens the answer may have; `TooLong` if the context cannot hold it.

    `tokens_max` is the most that this peer makes for the client, 0 if there is no such limit.
    """
    asked = len(ask.forced) or ask.max_tokens
    asked = min(asked, tokens_max) if tokens_max else asked
    wanted = prompt_tokens + max(asked, len(ask.delivered), 1)
    if wanted > context_length:
        raise TooLong(context_length, wanted)
    fitting = min(context_length - prompt_tokens, tokens_max or limits.TOKENS_MAX)
    return asked or min(fitting, limits.TOKENS_MAX)


@dataclass(frozen=True, slots=True)
class _Question:
    """An `Ask`, made ready for one model; `max_tokens` are as many as it will get."""

    ask: Ask
    prompt: tuple[int, ...]
    max_tokens: int
    matcher: Matcher | None
    recall: Recall | None


class _Run:
    """One generation from the engine's first output to `Finished`."""

    def __init__(
        self,
        model: ServedModel,
        question: _Question,
        turn: Turn,
        clock: Clock,
        recalled: Recalled | None,
    ) -> None:
        self._model = model
        self._ask = ask = question.ask
        self._prompt = question.prompt
        self._max_tokens = question.max_tokens
        self._matcher = question.matcher
        self._turn = turn
        self._clock = clock
        self._recalled = recalled
        self._chain = ask.memory_ticket if question.recall is not None else ""
        self._text = AnswerText(model.tokenizer.decoder(), ask.stop)
        self._text.replay(ask.delivered)
        self._completed = len(ask.delivered)
        self._started = clock.monotonic()
        self._first_token: float | None = None
        self._reused = 0

    async def messages(self) -> AsyncGenerator[ServerMessage, None]:
        if self._text.stopped:
            yield self._finished("stop")
            return
        if self._completed >= self._max_tokens:
            yield self._finished("length")
            return
        while self._turn.is_waiting:
            await self._turn.wait(min(PROGRESS_SECONDS, self._left()))
            if self._turn.is_waiting:
                yield Progress("queued", self._turn.ahead)
        generation = self._model.generate(self._engine_request())
        try:
            async with aclosing(self._stream(generation)) as messages:
                async for message in messages:
                    yield message
        finally:
            generation.close()

    async def _stream(self, generation: Generation) -> AsyncGenerator[ServerMessage, None]:
        while True:
            output = await _next_within(generation, min(PROGRESS_SECONDS, self._left()))
            match output:
                case None:
                    if self._first_token is None:
                        yield Progress("prefill")
                case Generated():
                    yield self._tokens(output)
                    if self._text.stopped:
                        yield self._last_word(generation, "stop")
                        return
                case Ended(reason=reason, reused_tokens=reused):
                    check_matcher(self._matcher)
                    self._reused = reused
                    yield self._last_word(generation, reason)
                    return

    def _left(self) -> float:
        """Seconds of the request's budget; `DeadlineExceeded` if it is spent."""
        left = self._started + self._ask.budget - self._clock.monotonic()
        if left <= 0:
            raise DeadlineExceeded("the time budget of the request is spent")
        return left

    def _tokens(self, output: Generated) -> Tokens:
        if self._first_token is None:
            self._first_token = self._clock.monotonic()
            if self._recalled is not None:
                self._recalled.stop()
        self._completed = output.position + 1
        return Tokens(
            output.position,
            (output.token_id,),
            self._text.push(output.token_id),
            likelihoods_of(output, self._model.tokenizer),
        )

    def _last_word(self, generation: Generation, reason: FinishReason) -> Finished:
        """The engine is done: whoever waits need not wait for this client to read."""
        generation.close()
        self._turn.end()
        return self._finished(reason)

    def _finished(self, reason: FinishReason) -> Finished:
        rest = self._text.finish()
        now = self._clock.monotonic()
        first = self._first_token if self._first_token is not None else now
        return Finished(
            "stop" if self._text.stopped else reason,
            rest,
            len(self._prompt),
            self._completed,
            queue=max(0.0, self._turn.began - self._started),
            prefill=max(0.0, first - self._turn.began),
            decode=max(0.0, now - first),
            pages_reused=self._reused // PAGE_SIZE,
            pages_fetched=self._recalled.pages if self._recalled else 0,
            bytes_fetched=self._recalled.size if self._recalled else 0,
        )

    def _engine_request(self) -> EngineRequest:
        return EngineRequest(
            f"{self._ask.request_id}/{self._ask.attempt}",
            self._prompt,
            self._max_tokens,
            self._ask.sampling,
            self._model.tokenizer.stop_ids,
            self._ask.delivered,
            client=self._turn.peer,
            tenant=self._ask.tenant,
            matcher=self._matcher,
            chain=self._chain,
            forced=self._ask.forced[: self._max_tokens],
        )
