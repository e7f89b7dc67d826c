"""What came after the first version of the ask protocol: old and new peers, and every bound."""

import math

import msgspec
import pytest
from msgspec.structs import replace

from protocols import limits
from protocols.ask import ClientAsk, ServerAsk
from protocols.codec import FrameDecoder, encode
from protocols.errors import ProtocolError, Unsupported
from protocols.features import features_of
from protocols.messages.ask import (
    Accepted,
    Ask,
    Chat,
    ChatMessage,
    ClientMessage,
    Constraint,
    JsonSchema,
    Likelihood,
    Likely,
    LogitBias,
    RegularExpression,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
    ToolCall,
)

PLAIN = Ask("r", 0, "s", Text("hi"), Sampling(0.5, 3, 0.9, 7), 9, 1.0)
TOOLS = Chat((ChatMessage("user", "hi"),), "[]")
ALL = {
    "penalties": replace(PLAIN, sampling=Sampling(frequency_penalty=0.1)),
    "min_p": replace(PLAIN, sampling=Sampling(min_p=0.1)),
    "logit_bias": replace(PLAIN, sampling=Sampling(logit_bias=(LogitBias(1, 2.0),))),
    "logprobs": replace(PLAIN, sampling=Sampling(logprobs=0)),
    "constraint": replace(PLAIN, constraint=RegularExpression("a")),
    "tools": replace(PLAIN, prompt=TOOLS),
    "tenant": replace(PLAIN, tenant="7f"),
    "forced": replace(PLAIN, forced=(1, 2)),
    "base": replace(PLAIN, on_base=True),
}


def test_what_every_version_can_needs_nothing() -> None:
    assert features_of(PLAIN) == ()
    assert features_of(replace(PLAIN, prompt=Chat((ChatMessage("tool", "x"),)))) == ()


@pytest.mark.parametrize(("name", "ask"), ALL.items())
def test_a_peer_that_would_leave_something_out_is_not_believed(name: str, ask: Ask) -> None:
    assert features_of(ask) == (name,)
    with pytest.raises(Unsupported, match=name):
        ClientAsk(ask).receive(Accepted(1, 2, "d"))
    ClientAsk(ask).receive(Accepted(1, 2, "d", (name, "more")))


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage("assistant", "", (ToolCall("1", "f", "{}"),)),
        ChatMessage("tool", "rain", (), "1"),
        ChatMessage("tool", "rain", name="f"),
    ],
)
def test_calls_in_a_conversation_need_a_peer_that_knows_them(message: ChatMessage) -> None:
    assert features_of(replace(PLAIN, prompt=Chat((message,)))) == ("tools",)


class OldSampling(msgspec.Struct, frozen=True):
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


class OldAsk(msgspec.Struct, frozen=True, tag="ask"):
    request_id: str
    attempt: int
    specialist: str
    prompt: Chat | Text
    sampling: OldSampling
    max_tokens: int
    budget: float
    stop: tuple[str, ...] = ()
    delivered: tuple[int, ...] = ()


def test_an_old_peer_reads_new_questions_and_a_new_one_old_questions() -> None:
    new = replace(ALL["penalties"], constraint=JsonSchema("{}"))
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=OldAsk)
    assert (old.request_id, old.max_tokens) == ("r", 9)
    back: ClientMessage = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=ClientMessage)
    assert back == replace(new, sampling=Sampling(), constraint=None)


def decoded(message: msgspec.Struct) -> object:
    decoder: FrameDecoder[ClientMessage | ServerMessage] = FrameDecoder(
        ClientMessage | ServerMessage
    )
    return decoder.feed(encode(message))[0].message


def constrained(constraint: Constraint) -> Ask:
    return replace(PLAIN, constraint=constraint)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(min_p=1.5),
        Sampling(min_p=math.nan),
        Sampling(repetition_penalty=0.0),
        Sampling(repetition_penalty=math.inf),
        Sampling(presence_penalty=math.nan),
        Sampling(frequency_penalty=-2.1),
        Sampling(logit_bias=(LogitBias(-1, 0.0),)),
        Sampling(logit_bias=(LogitBias(1, math.nan),)),
        Sampling(logit_bias=(LogitBias(1, 0.0),) * (limits.LOGIT_BIASES_MAX + 1)),
        Sampling(logprobs=limits.LOGPROBS_MAX + 1),
    ],
)
def test_sampling_is_bounded(sampling: Sampling) -> None:
    with pytest.raises(ProtocolError):
        decoded(replace(PLAIN, sampling=sampling))


def test_given_ids_are_bounded() -> None:
    most = replace(PLAIN, forced=(1,) * limits.FORCED_TOKENS_MAX)
    assert decoded(most) == most
    for wrong in [(-1,), (2**31,), (1,) * (limits.FORCED_TOKENS_MAX + 1)]:
        with pytest.raises(ProtocolError):
            decoded(replace(PLAIN, forced=wrong))


@pytest.mark.parametrize(
    "ask",
    [
        replace(ALL["forced"], delivered=(1,)),
        replace(ALL["forced"], stop=("x",)),
        replace(ALL["forced"], constraint=RegularExpression("a")),
    ],
)
def test_nothing_may_change_an_answer_that_is_given(ask: Ask) -> None:
    with pytest.raises(ProtocolError, match="given"):
        ServerAsk().receive(ask)
    ServerAsk().receive(replace(ask, forced=()))


def test_of_given_ids_a_peer_can_send_no_others_and_none_without_its_likelihood() -> None:
    found = Likelihood(-0.5, b"t")
    for wrong in [
        Tokens(0, (2,), "", (found,)),
        Tokens(0, (1, 3), "", (found, found)),
        Tokens(0, (1, 2, 1), "", (found,) * 3),
        Tokens(0, (1,), "", ()),
        Tokens(0, (1,), "", (replace(found, top=(LIKELY,)),)),
    ]:
        client = ClientAsk(replace(PLAIN, forced=(1, 2)))
        client.receive(Accepted(1, 2, "d", ("forced",)))
        with pytest.raises(ProtocolError):
            client.receive(wrong)
    client = ClientAsk(replace(PLAIN, forced=(1, 2)))
    client.receive(Accepted(1, 2, "d", ("forced",)))
    client.receive(Tokens(0, (1,), "", (found,)))
    client.receive(Tokens(1, (2,), "", (found,)))
    with pytest.raises(ProtocolError):
        client.receive(Tokens(2, (1,), "", (found,)))


LIKELY = Likely(1, -1.0, b"a")


@pytest.mark.parametrize(
    "message",
    [
        constrained(RegularExpression("")),
        constrained(JsonSchema("x" * (limits.CONSTRAINT_BYTES_MAX + 1))),
        replace(PLAIN, prompt=replace(TOOLS, tools="x" * (limits.TOOLS_BYTES_MAX + 1))),
        Accepted(1, 1, "", ("x" * 33,)),
        Accepted(1, 1, "", ("x",) * 33),
        Tokens(0, (1,), "a", (Likelihood(0.5, b"a"),)),
        Tokens(0, (1,), "a", (Likelihood(math.nan, b"a"),)),
        Tokens(0, (1,), "a", (Likelihood(-math.inf, b"a"),)),
        Tokens(0, (1,), "a", (Likelihood(-1.0, b"a" * (limits.TOKEN_BYTES_MAX + 1)),)),
        Tokens(0, (1,), "a", (Likelihood(-1.0, b"a", (LIKELY,) * 21),)),
    ],
)
def test_everything_else_is_bounded(message: msgspec.Struct) -> None:
    with pytest.raises(ProtocolError):
        decoded(message)


def test_the_largest_of_everything_passes() -> None:
    sampling = Sampling(
        2.0, 9, 1.0, 9, 1.0, 100.0, 2.0, -2.0, (LogitBias(2**31 - 1, -100.0),) * 1_024, 20
    )
    ask = replace(PLAIN, sampling=sampling, constraint=JsonSchema("x" * 65_536))
    assert decoded(ask) == ask
    tokens = Tokens(0, (1,), "a", (Likelihood(-9_999.0, b"a" * 1_024, (LIKELY,) * 20),))
    assert decoded(tokens) == tokens


def likely_client() -> ClientAsk:
    client = ClientAsk(replace(PLAIN, sampling=Sampling(logprobs=1)))
    client.receive(Accepted(1, 1, "", ("logprobs",)))
    return client


def test_likelihoods_are_one_for_each_token_and_as_many_as_asked_for() -> None:
    client = likely_client()
    client.receive(Tokens(0, (1,), "a", (Likelihood(-1.0, b"a", (LIKELY,)),)))
    with pytest.raises(ProtocolError, match="each token"):
        likely_client().receive(Tokens(0, (1,), "a"))
    with pytest.raises(ProtocolError, match="asked for"):
        likely_client().receive(Tokens(0, (1,), "a", (Likelihood(-1.0, b"a", (LIKELY,) * 2),)))
