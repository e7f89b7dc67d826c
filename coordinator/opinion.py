"""How likely a base finds what one of its specialists said: asked of somebody who has it in memory.

Knows cards, peers and the ask protocol; must not know chains, or what the figure is good for.

Whoever hosts a specialist has its base as well. This node is asked if it hosts one on the same
base, for then nobody can make the figure up; else the peer that spoke, which could lie about its
own likelihoods just as well.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from coordinator.answer import AnswerRequest
from coordinator.ports import Answerer
from protocols.errors import DslmError, ProtocolError
from protocols.ids import PeerId, SpecialistId
from protocols.messages.ask import Accepted, Ask, Sampling, Tokens
from protocols.records import CapabilityCard

SECONDS_MAX = 4.0
"""A figure that takes longer would keep the client waiting longer than it is worth."""


@dataclass(frozen=True, slots=True)
class Question:
    """What `specialist` said at `peer`: the `ids` that follow `prompt`, for `request`."""

    specialist: SpecialistId
    peer: PeerId
    request: AnswerRequest
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Referee:
    """Somebody who has the base, under the name of `specialist`; `digest` names the base."""

    peer: PeerId
    specialist: SpecialistId
    digest: str


def referee_for(question: Question, cards: Sequence[CapabilityCard], me: PeerId) -> Referee | None:
    """Whom to ask; None if the speaker's card names no base, or it is one itself.

    `cards` are all that may be asked. Only the same weights in the same precision are the same
    base.
    """
    spoke = next(
        (
            card
            for card in cards
            if card.peer == question.peer and card.specialist == question.specialist
        ),
        None,
    )
    if spoke is None or spoke.is_base or not spoke.base_digest:
        return None
    for card in cards:
        is_same = (card.base_digest, card.precision) == (spoke.base_digest, spoke.precision)
        if card.peer == me and is_same:
            return Referee(me, SpecialistId(card.specialist), spoke.base_digest)
    return Referee(question.peer, question.specialist, spoke.base_digest)


async def opinion_of(
    referee: Referee | None, question: Question, answerer: Callable[[PeerId], Answerer]
) -> float | None:
    """The base's mean log-probability of the ids, in nats; None if it cannot be had in time."""
    if referee is None:
        return None
    ask = _ask(referee, question)
    try:
        async with asyncio.timeout(ask.budget):
            return await _mean(answerer(referee.peer), ask, referee.digest)
    except (DslmError, TimeoutError):
        return None  # the answer is judged by itself then


async def _mean(answerer: Answerer, ask: Ask, digest: str) -> float:
    total, count = 0.0, 0
    async with aclosing(answerer.answer(ask)) as messages:
        async for message in messages:
            match message:
                case Accepted() if message.model_digest != digest:
                    raise ProtocolError("the peer's base is another than its card names")
                case Tokens():
                    total += sum(found.logprob for found in message.logprobs)
                    count += len(message.logprobs)
                case _:
                    pass
    if count != len(ask.forced):
        raise ProtocolError("likelihoods are missing")
    return total / count


def _ask(referee: Referee, question: Question) -> Ask:
    request = question.request
    return Ask(
        request_id=f"{request.request_id[:60]}.b",
        attempt=0,
        specialist=referee.specialist,
        prompt=request.prompt,
        sampling=Sampling(logprobs=0),
        max_tokens=len(question.ids),
        budget=min(SECONDS_MAX, request.budget),
        tenant=request.tenant,
        forced=question.ids,
        on_base=True,
    )
