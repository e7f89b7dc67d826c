"""The ask protocol's state machines: what may follow what, and what refusals mean."""

import pytest

from protocols.ask import ClientAsk, ServerAsk, refusal_error, refusal_of
from protocols.errors import (
    Busy,
    DslmError,
    NotHere,
    PeerLost,
    ProtocolError,
    Refused,
    TooLong,
    Unsupported,
)
from protocols.messages.ask import (
    Accepted,
    Ask,
    Cancel,
    Finished,
    Progress,
    Refusal,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
)

ACCEPTED = Accepted(1, 10, "d")


def ask(max_tokens: int = 4, delivered: tuple[int, ...] = ()) -> Ask:
    return Ask("r", 0, "law", Text("hi"), Sampling(), max_tokens, 9.0, delivered=delivered)


def test_a_whole_answer() -> None:
    client = ClientAsk(ask())
    for message in (ACCEPTED, Progress("queued", 1), Tokens(0, (1,), "a"), Tokens(1, (2, 3), "b")):
        assert client.receive(message) is message
    client.receive(Finished("stop", "", 1, 3))
    assert client.ended
    with pytest.raises(ProtocolError):
        client.receive(Progress("queued"))


def test_a_continued_answer_begins_after_what_was_delivered() -> None:
    client = ClientAsk(ask(delivered=(7, 8)))
    client.receive(ACCEPTED)
    client.receive(Tokens(2, (9,), ""))
    with pytest.raises(ProtocolError, match="more tokens"):
        client.receive(Tokens(3, (1, 2), ""))


def test_an_answer_that_is_all_there_takes_no_more_tokens() -> None:
    client = ClientAsk(ask(max_tokens=2, delivered=(7, 8)))
    client.receive(ACCEPTED)
    with pytest.raises(ProtocolError, match="more tokens"):
        client.receive(Tokens(2, (1,), ""))
    client.receive(Finished("length", "", 1, 2))


def test_no_limit_means_no_limit() -> None:
    client = ClientAsk(ask(max_tokens=0))
    client.receive(ACCEPTED)
    client.receive(Tokens(0, tuple(range(200)), ""))


@pytest.mark.parametrize(
    "messages",
    [
        [Progress("queued")],
        [Tokens(0, (1,), "")],
        [Finished("stop", "", 1, 0)],
        [ACCEPTED, ACCEPTED],
        [ACCEPTED, Tokens(1, (1,), "")],
        [ACCEPTED, Tokens(0, (1,), ""), Tokens(0, (1,), "")],
        [ACCEPTED, Tokens(0, (1,), ""), Finished("stop", "", 1, 2)],
    ],
)
def test_wrong_orders(messages: list[ServerMessage]) -> None:
    client = ClientAsk(ask())
    for message in messages[:-1]:
        client.receive(message)
    with pytest.raises(ProtocolError):
        client.receive(messages[-1])


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal("busy", "full", 2.0), Busy),
        (Refusal("draining"), Busy),
        (Refusal("not_here"), NotHere),
        (Refusal("too_long", limit=5, requested=9), TooLong),
        (Refusal("unsupported"), Unsupported),
        (Refusal("failed"), Refused),
    ],
)
def test_refusals_are_raised(refusal: Refusal, error: type[DslmError]) -> None:
    client = ClientAsk(ask())
    with pytest.raises(error):
        client.receive(refusal)
    assert client.ended


@pytest.mark.parametrize("error", [Busy("b", 3.0), NotHere("n"), TooLong(5, 9), Unsupported("u")])
def test_an_error_survives_the_wire(error: DslmError) -> None:
    again = refusal_error(refusal_of(error))
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__


def test_our_internals_are_not_told() -> None:
    assert "secret" not in refusal_of(PeerLost("secret path")).message


def test_the_server_takes_one_ask_then_only_cancel() -> None:
    server = ServerAsk()
    with pytest.raises(ProtocolError):
        server.receive(Cancel())
    server.receive(ask())
    with pytest.raises(ProtocolError):
        server.receive(ask())
    server.receive(Cancel())
