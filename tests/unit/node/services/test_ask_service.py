"""`AskService` with a scripted model: what is answered, refused, resumed and counted."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace as struct_replace

from node.engine.base import (
    Alternative,
    Ended,
    EngineRequest,
    Generated,
    StepOutput,
    TokenLikelihood,
)
from node.services.ask import WAITING_PER_SLOT, AskService
from protocols.errors import Busy, DeadlineExceeded, NotHere, TooLong, Unsupported
from protocols.ids import PeerId, SpecialistId
from protocols.messages.ask import (
    Accepted,
    Ask,
    Chat,
    ChatMessage,
    Constraint,
    Finished,
    Likelihood,
    Likely,
    Progress,
    RegularExpression,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
)
from protocols.ports import Allowance

ANSWER = tuple(map(ord, "once upon a time"))
TALE = SpecialistId("tale")


class Letters:
    def push(self, token_id: int) -> str:
        return chr(token_id)

    def flush(self) -> str:
        return ""


@dataclass
class ScriptedMatcher:
    """Allows everything but the letter `x` in the answer so far."""

    failure: str = ""
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def allowed(self, answer: Sequence[int]) -> bytes:
        self.asked.append(tuple(answer))
        if ord("x") in answer:
            self.failure = "the answer so far does not follow it"
        return b"\xff" * 32


class LetterTokenizer:
    stop_ids = frozenset({0})

    def encode_chat(
        self,
        messages: Sequence[ChatMessage],
        tools: str = "",  # noqa: ARG002
    ) -> tuple[int, ...]:
        return tuple(ord(letter) for message in messages for letter in message.content)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def decoder(self) -> Letters:
        return Letters()

    def spelling(self, token_id: int) -> bytes:
        return chr(token_id).encode()

    def matcher(self, constraint: Constraint) -> ScriptedMatcher:
        assert isinstance(constraint, RegularExpression)
        if constraint.pattern == "(":
            raise Unsupported("The regular expression cannot be used")
        return ScriptedMatcher()


@dataclass
class ScriptedGeneration:
    """Says ANSWER from the first undelivered position on, then ends; or hangs."""

    request: EngineRequest
    hangs: bool
    closed: bool = False
    sent: int = 0

    async def next(self) -> StepOutput:
        if self.hangs:
            await asyncio.Event().wait()
        position = len(self.request.delivered) + self.sent
        self.sent += 1
        if position >= self.request.max_tokens:
            return Ended(self.request.request_id, "length")
        if self.request.forced:
            given = self.request.forced[position]
            return Generated("r", position, given, TokenLikelihood(-0.25, ()))
        if position >= len(ANSWER):
            return Ended(self.request.request_id, "stop")
        likelihood = None
        if self.request.sampling.logprobs is not None:
            likelihood = TokenLikelihood(1e-9, (Alternative(ord("é"), -math.inf),))
        return Generated(self.request.request_id, position, ANSWER[position], likelihood)

    def close(self) -> None:
        self.closed = True


@dataclass
class ScriptedModel:
    specialist: SpecialistId = TALE
    model_digest: str = "d" * 64
    context_length: int = 64
    slots: int = 1
    hangs: bool = False
    healthy: bool = True
    tokenizer: LetterTokenizer = field(default_factory=LetterTokenizer)
    generations: list[ScriptedGeneration] = field(default_factory=list)
    base: "ScriptedModel | None" = None

    @property
    def plain(self) -> "ScriptedModel":
        return self.base or self

    def generate(self, request: EngineRequest) -> ScriptedGeneration:
        self.generations.append(ScriptedGeneration(request, self.hangs))
        return self.generations[-1]


class LoopTime:
    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


LIKELY = Sampling(logprobs=1)
ASK = Ask("r1", 0, "tale", Text("tell"), Sampling(), max_tokens=0, budget=30.0)


def service(model: ScriptedModel) -> AskService:
    return AskService({model.specialist: model}, LoopTime())


async def collect(asked: AskService, ask: Ask) -> list[ServerMessage]:
    async with aclosing(asked.answer(ask)) as messages:
        return [message async for message in messages]


def text_of(messages: list[ServerMessage]) -> str:
    return "".join(one.text for one in messages if isinstance(one, Tokens | Finished))


async def test_a_whole_answer() -> None:
    model = ScriptedModel()
    asked = service(model)
    messages = await collect(asked, ASK)
    assert messages[0] == Accepted(4, 64, model.model_digest)
    assert text_of(messages) == "once upon a time"
    last = messages[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.prompt_tokens, last.completion_tokens) == ("stop", 4, len(ANSWER))
    assert model.generations[0].closed
    assert asked.inside == 0
    assert (asked.served.requests, asked.served.tokens) == (1, len(ANSWER))


async def test_going_on_in_mid_answer_gives_the_rest() -> None:
    model = ScriptedModel()
    resumed = struct_replace(ASK, delivered=ANSWER[:5])
    messages = await collect(service(model), resumed)
    assert text_of(messages) == "upon a time"
    assert next(one.position for one in messages if isinstance(one, Tokens)) == 5


async def test_a_stop_string_ends_the_answer_and_the_generation() -> None:
    model = ScriptedModel()
    messages = await collect(service(model), struct_replace(ASK, stop=(" a ",)))
    assert text_of(messages) == "once upon"
    assert isinstance(messages[-1], Finished)
    assert messages[-1].reason == "stop"
    assert model.generations[0].closed


async def test_an_answer_that_was_complete_when_its_peer_died_only_ends() -> None:
    model = ScriptedModel()
    full = struct_replace(ASK, max_tokens=5, delivered=ANSWER[:5])
    messages = await collect(service(model), full)
    assert [type(one) for one in messages] == [Accepted, Finished]
    assert model.generations == []


async def test_length_is_the_reason_at_max_tokens() -> None:
    messages = await collect(service(ScriptedModel()), struct_replace(ASK, max_tokens=3))
    assert isinstance(messages[-1], Finished)
    assert (messages[-1].reason, messages[-1].completion_tokens) == ("length", 3)


async def test_a_conversation_goes_through_the_template() -> None:
    chat = Chat((ChatMessage("user", "hello"),))
    messages = await collect(service(ScriptedModel()), struct_replace(ASK, prompt=chat))
    assert isinstance(messages[0], Accepted)
    assert messages[0].prompt_tokens == 5


@pytest.mark.parametrize(
    ("peer", "client"), [(PeerId("12D3KooWasker"), "12D3KooWasker"), (None, "")]
)
async def test_the_engine_is_told_who_asks(peer: PeerId | None, client: str) -> None:
    model = ScriptedModel()
    async with aclosing(service(model).answer(ASK, peer)) as messages:
        async for _ in messages:
            pass
    assert model.generations[0].request.client == client


async def test_unknown_model_is_not_here() -> None:
    with pytest.raises(NotHere):
        await collect(service(ScriptedModel()), struct_replace(ASK, specialist="other"))


async def test_what_does_not_fit_the_context_is_too_long() -> None:
    with pytest.raises(TooLong) as refused:
        await collect(service(ScriptedModel()), struct_replace(ASK, max_tokens=61))
    assert (refused.value.limit, refused.value.requested) == (64, 65)


async def test_a_full_peer_is_busy_and_a_left_one_is_free_again() -> None:
    model = ScriptedModel(hangs=True)
    asked = service(model)
    async with asyncio.TaskGroup() as tasks:
        hanging = [
            tasks.create_task(collect(asked, struct_replace(ASK, request_id=f"r{n}")))
            for n in range(1 + WAITING_PER_SLOT)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await collect(asked, ASK)
        for task in hanging:
            task.cancel()
    assert asked.inside == 0
    assert all(generation.closed for generation in model.generations)


async def test_draining_refuses_the_next_request() -> None:
    asked = service(ScriptedModel())
    asked.drain()
    with pytest.raises(Busy):
        await collect(asked, ASK)


async def test_a_silent_engine_gives_life_signs_until_the_budget_is_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.services.ask.PROGRESS_SECONDS", 0.001)
    asked = service(ScriptedModel(hangs=True))
    seen: list[ServerMessage] = []
    with pytest.raises(DeadlineExceeded):
        async for message in asked.answer(struct_replace(ASK, budget=0.05)):
            seen.append(message)
    assert any(isinstance(one, Progress) for one in seen)
    assert asked.inside == 0


async def test_a_model_that_broke_is_not_here_any_more() -> None:
    with pytest.raises(NotHere):
        await collect(service(ScriptedModel(healthy=False)), ASK)


async def test_likelihoods_come_spelled_and_within_the_protocols_bounds() -> None:
    messages = await collect(service(ScriptedModel()), struct_replace(ASK, sampling=LIKELY))
    assert isinstance(messages[0], Accepted)
    assert messages[0].honours == ("logprobs",)
    tokens = [one for one in messages if isinstance(one, Tokens)]
    assert tokens[0].logprobs == (
        Likelihood(0.0, b"o", (Likely(ord("é"), -9_999.0, "é".encode()),)),
    )
    assert all(len(one.logprobs) == 1 for one in tokens)
    unasked = await collect(service(ScriptedModel()), ASK)
    assert not any(one.logprobs for one in unasked if isinstance(one, Tokens))


async def test_a_constraint_reaches_the_engine_as_a_matcher() -> None:
    model = ScriptedModel()
    asked = struct_replace(ASK, constraint=RegularExpression("a+"), delivered=ANSWER[:3])
    messages = await collect(service(model), asked)
    assert isinstance(messages[0], Accepted)
    assert messages[0].honours == ("constraint",)
    matcher = model.generations[0].request.matcher
    assert isinstance(matcher, ScriptedMatcher)
    assert matcher.asked == [ANSWER[:3]]


async def test_a_constraint_that_means_nothing_is_refused_before_anything_else() -> None:
    model = ScriptedModel()
    with pytest.raises(Unsupported):
        await collect(service(model), struct_replace(ASK, constraint=RegularExpression("(")))
    assert model.generations == []


async def test_delivered_ids_that_break_the_constraint_are_refused() -> None:
    asked = struct_replace(ASK, constraint=RegularExpression("a+"), delivered=(ord("x"),))
    with pytest.raises(Unsupported, match="does not follow"):
        await collect(service(ScriptedModel()), asked)


async def test_an_answer_whose_constraint_broke_does_not_end_as_if_it_were_whole() -> None:
    model = ScriptedModel()
    asked = service(model)
    seen: list[ServerMessage] = []
    with pytest.raises(Unsupported, match="too complex"):
        async for message in asked.answer(struct_replace(ASK, constraint=RegularExpression("a+"))):
            seen.append(message)
            if isinstance(message, Tokens):
                matcher = model.generations[0].request.matcher
                assert isinstance(matcher, ScriptedMatcher)
                matcher.failure = "it is too complex"
    assert not any(isinstance(one, Finished) for one in seen)
    assert asked.inside == 0


FORCED = struct_replace(ASK, forced=(97, 98, 99), max_tokens=3)


async def test_ids_that_are_given_come_back_with_their_likelihoods() -> None:
    model = ScriptedModel()
    asked = service(model)
    messages = await collect(asked, FORCED)
    assert messages[0] == Accepted(4, 64, model.model_digest, ("forced",))
    told = [one for one in messages if isinstance(one, Tokens)]
    assert [one.ids for one in told] == [(97,), (98,), (99,)]
    assert [found.logprob for one in told for found in one.logprobs] == [-0.25] * 3
    assert isinstance(messages[-1], Finished)
    assert (messages[-1].reason, messages[-1].completion_tokens) == ("length", 3)
    assert model.generations[0].request.forced == (97, 98, 99)
    assert (asked.served.requests, asked.served.tokens) == (1, 0), "nothing was generated"


async def test_the_base_answers_in_a_specialists_place_if_it_is_asked() -> None:
    base = ScriptedModel(model_digest="b" * 64)
    model = ScriptedModel(base=base)
    messages = await collect(service(model), struct_replace(FORCED, on_base=True))
    assert messages[0] == Accepted(4, 64, "b" * 64, ("base", "forced"))
    assert (len(model.generations), len(base.generations)) == (0, 1)


async def test_given_ids_take_a_slot_and_must_fit_like_any_answer() -> None:
    model = ScriptedModel(hangs=True)
    asked = service(model)
    async with asyncio.TaskGroup() as tasks:
        hanging = [tasks.create_task(collect(asked, FORCED)) for _ in range(1 + WAITING_PER_SLOT)]
        await asyncio.sleep(0)
        assert asked.admission(TALE).running == 1
        with pytest.raises(Busy):
            await collect(asked, FORCED)
        for task in hanging:
            task.cancel()
    assert asked.inside == 0
    assert all(generation.closed for generation in model.generations)
    with pytest.raises(TooLong):
        await collect(asked, struct_replace(FORCED, forced=(97,) * 61, max_tokens=61))


async def test_of_given_ids_a_peer_hears_of_as_many_as_it_may_have() -> None:
    model = ScriptedModel()
    asked = AskService({TALE: model}, LoopTime(), lambda _peer: Allowance(9.0, 9, 9, 1, 2, 9))
    async with aclosing(asked.answer(FORCED, PeerId("p"))) as answer:
        messages = [message async for message in answer]
    assert isinstance(messages[-1], Finished)
    assert (messages[-1].reason, messages[-1].completion_tokens) == ("length", 2)
    assert model.generations[0].request.forced == (97, 98)
