"""The client's state machine of the ask protocol against a naive model of what is allowed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.ask import ClientAsk
from protocols.errors import DslmError, ProtocolError
from protocols.messages.ask import (
    Accepted,
    Ask,
    Finished,
    Progress,
    Refusal,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
)
from tests.effort import examples

small = st.integers(0, 5)
some_ids = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)
messages = st.one_of(
    st.just(Accepted(1, 1, "")),
    st.just(Progress("queued")),
    st.builds(Tokens, small, some_ids, st.just("")),
    st.builds(Finished, st.just("stop"), st.just(""), st.just(1), small),
    st.just(Refusal("failed")),
)


def _model(ask: Ask, received: list[ServerMessage]) -> int:
    """How many of `received`, from the first on, make a proper beginning; written differently."""
    ids = list(ask.delivered)
    for count, message in enumerate(received):
        before = received[:count]
        accepted = any(isinstance(earlier, Accepted) for earlier in before)
        if any(isinstance(earlier, Finished | Refusal) for earlier in before):
            return count
        if isinstance(message, Refusal):
            continue
        if isinstance(message, Accepted) == accepted:
            return count
        if isinstance(message, Tokens):
            if message.position != len(ids):
                return count
            ids += message.ids
            if ask.max_tokens and len(ids) > ask.max_tokens:
                return count
        if isinstance(message, Finished) and message.completion_tokens != len(ids):
            return count
    return len(received)


@settings(max_examples=examples(1_000), deadline=None)
@given(
    st.integers(0, 6),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
    st.lists(messages, max_size=7),
    st.booleans(),
)
def test_the_client_accepts_what_the_model_accepts(
    max_tokens: int, delivered: tuple[int, ...], received: list[ServerMessage], is_accepted: bool
) -> None:
    ask = Ask("r", 0, "s", Text(""), Sampling(), max_tokens, 1.0, delivered=delivered[:max_tokens])
    if is_accepted:
        received = [Accepted(1, 1, ""), *received]
    client, taken = ClientAsk(ask), 0
    for message in received:
        try:
            client.receive(message)
        except ProtocolError:
            break
        except DslmError:
            assert isinstance(message, Refusal)
        taken += 1
    assert taken == _model(ask, received)
