"""Whom to ask what the base finds of an answer, and which of its answers count."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest
from msgspec.structs import replace

from coordinator.answer import AnswerRequest
from coordinator.opinion import Question, Referee, opinion_of, referee_for
from protocols.errors import Busy, DslmError, PeerLost
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import (
    Accepted,
    Ask,
    Finished,
    Likelihood,
    Progress,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
)
from protocols.records import CapabilityCard

ME, A, B = PeerId("me"), PeerId("a"), PeerId("b")
LAW, TAX = SpecialistId("law"), SpecialistId("tax")


def card(peer: PeerId, specialist: str, base: str = "B", **more: object) -> CapabilityCard:
    return CapabilityCard(
        peer, "s", 1, 1e10, specialist, "d", "b", "int4", 9, domains=("x",), base_digest=base,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


REQUEST = AnswerRequest(RequestId("r.0.0"), "law", Text("hi"), Sampling(0.7), 90, 9.0, tenant="7f")
QUESTION = Question(LAW, A, REQUEST, (4, 5))
SPOKE = card(A, LAW)


@pytest.mark.parametrize(
    ("cards", "referee"),
    [
        ([SPOKE], Referee(A, LAW, "B")),
        ([card(B, LAW), SPOKE], Referee(A, LAW, "B")),
        ([SPOKE, card(ME, TAX)], Referee(ME, TAX, "B")),
        ([SPOKE, card(ME, TAX, "another")], Referee(A, LAW, "B")),
        ([SPOKE, replace(card(ME, TAX), precision="fp32")], Referee(A, LAW, "B")),
        ([SPOKE, replace(card(ME, "base"), domains=())], Referee(ME, SpecialistId("base"), "B")),
        ([card(A, LAW, "")], None),
        ([replace(SPOKE, domains=())], None),
        ([card(B, LAW)], None),
        ([], None),
    ],
)
def test_our_own_base_is_asked_first_then_the_speaker(
    cards: Sequence[CapabilityCard], referee: Referee | None
) -> None:
    assert referee_for(QUESTION, cards, ME) == referee


class Peer:
    def __init__(self, *messages: ServerMessage | DslmError, hangs: bool = False) -> None:
        self._messages = messages
        self._hangs = hangs
        self.asked: list[Ask] = []
        self.is_closed = False

    async def answer(self, ask: Ask) -> AsyncGenerator[ServerMessage, None]:
        self.asked.append(ask)
        try:
            for message in self._messages:
                if isinstance(message, DslmError):
                    raise message
                yield message
            if self._hangs:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True


def likely(position: int, logprob: float) -> Tokens:
    return Tokens(position, (4 + position,), "", (Likelihood(logprob, b""),))


ACCEPTED, END = Accepted(1, 9, "B"), Finished("length", "", 1, 2)
WHOLE = (ACCEPTED, Progress("prefill"), likely(0, -1.0), likely(1, -2.0), END)
REFEREE = Referee(A, LAW, "B")


def at(peer: Peer) -> Callable[[PeerId], Peer]:
    def answerer(asked: PeerId) -> Peer:
        assert asked == A
        return peer

    return answerer


async def test_the_mean_of_what_the_base_says() -> None:
    peer = Peer(*WHOLE)
    assert await opinion_of(REFEREE, QUESTION, at(peer)) == pytest.approx(-1.5)
    (ask,) = peer.asked
    assert (ask.specialist, ask.forced, ask.on_base, ask.max_tokens) == (LAW, (4, 5), True, 2)
    assert (ask.prompt, ask.tenant) == (REQUEST.prompt, "7f")
    assert ask.sampling == Sampling(logprobs=0)
    assert (ask.stop, ask.delivered, ask.constraint, ask.memory_ticket) == ((), (), None, "")
    assert ask.request_id != REQUEST.request_id


@pytest.mark.parametrize(
    "messages",
    [
        (Accepted(1, 9, "another base"), *WHOLE[1:]),
        (ACCEPTED, likely(0, -1.0), END),
        (ACCEPTED, END),
        (ACCEPTED, likely(0, -1.0), PeerLost("gone")),
        (Busy("full", 1.0),),
    ],
)
async def test_what_is_not_whole_or_not_the_base_is_no_opinion(
    messages: Sequence[ServerMessage | DslmError],
) -> None:
    peer = Peer(*messages)
    assert await opinion_of(REFEREE, QUESTION, at(peer)) is None
    assert peer.is_closed


async def test_nobody_waits_long_for_it() -> None:
    peer = Peer(ACCEPTED, hangs=True)
    hurried = Question(
        LAW, A, AnswerRequest(RequestId("r"), "x", Text(""), Sampling(), 9, 0.01), (4,)
    )
    assert await opinion_of(REFEREE, hurried, at(peer)) is None
    assert peer.is_closed
    assert await opinion_of(None, QUESTION, at(peer)) is None
