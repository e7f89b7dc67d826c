"""The chat's commands and its memory."""

from collections.abc import Generator

import pytest

from node.cli.answering import ChatMessage, ChatRequest, OwnOptions, RouteName
from node.cli.chat import Conversation
from node.cli.client import ApiError, Client, ErrorDetail
from node.gateway.fake import specialist_state
from node.state import SpecialistsState
from protocols.ids import PeerId

END = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}'


class Parrot(Client):
    """Repeats the last message, or does what `trouble` says after its first piece."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.asked: list[ChatRequest] = []
        self.trouble: BaseException | None = None

    def lines(self, path: str, body: object) -> Generator[str, None, None]:
        assert path == "/v1/chat/completions"
        assert isinstance(body, ChatRequest)
        self.asked.append(body)
        yield f'data: {{"choices":[{{"delta":{{"content":"{body.messages[-1].content}"}}}}]}}'
        if self.trouble is not None:
            raise self.trouble
        yield END

    def get(self, path: str, kind: type) -> SpecialistsState:  # type: ignore[override]
        assert (path, kind) == ("/api/v1/models", SpecialistsState)
        return SpecialistsState(1, (specialist_state("maths", PeerId("P")),))


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


def _said(parrot: Parrot) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in parrot.asked[-1].messages]


def test_turns_add_up_and_clear_forgets(parrot: Parrot) -> None:
    talk = Conversation(parrot, "auto")
    assert talk.handle("one")
    assert talk.handle("two")
    assert _said(parrot) == [("user", "one"), ("assistant", "one"), ("user", "two")]
    talk.handle("/clear")
    talk.handle("three")
    assert _said(parrot) == [("user", "three")]


def test_a_system_prompt_comes_first_until_it_is_taken_back(parrot: Parrot) -> None:
    talk = Conversation(parrot, "auto")
    talk.handle("/system Be brief.")
    talk.handle("one")
    assert _said(parrot)[0] == ("system", "Be brief.")
    talk.handle("/system")
    talk.handle("two")
    assert _said(parrot)[0] == ("user", "one")


def test_choosing_a_model(parrot: Parrot, capsys: pytest.CaptureFixture[str]) -> None:
    talk = Conversation(parrot, "auto")
    talk.handle("/model mathss")
    assert talk.model == "auto"
    assert "maths" in capsys.readouterr().err
    talk.handle("/model maths")
    talk.handle("one")
    assert parrot.asked[-1].model == "maths"


def test_an_interrupted_answer_is_kept_as_far_as_it_came(
    parrot: Parrot, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = Conversation(parrot, "auto")
    parrot.trouble = KeyboardInterrupt()
    assert talk.handle("one")
    assert talk.turns == [ChatMessage("user", "one"), ChatMessage("assistant", "one")]
    assert "(stopped)" in capsys.readouterr().err


def test_a_failed_turn_is_forgotten(parrot: Parrot, capsys: pytest.CaptureFixture[str]) -> None:
    talk = Conversation(parrot, "auto")
    parrot.trouble = ApiError(ErrorDetail("too long", "context_length_exceeded"))
    assert talk.handle("one")
    assert talk.turns == []
    said = capsys.readouterr().err
    assert "error: too long" in said
    assert "/clear" in said


def test_other_lines(parrot: Parrot, capsys: pytest.CaptureFixture[str]) -> None:
    talk = Conversation(parrot, "auto")
    assert talk.handle("   ")
    assert talk.handle("/nonsense")
    assert talk.handle("/help")
    assert not parrot.asked
    assert "/model ID" in capsys.readouterr().err
    assert talk.handle("/etc/passwd is a file")
    assert parrot.asked
    assert not talk.handle("/bye")


@pytest.mark.parametrize("route", ["any", "trusted", "local"])
def test_every_turn_says_who_may_read_it(parrot: Parrot, route: RouteName) -> None:
    talk = Conversation(parrot, "auto", options=OwnOptions(route))
    talk.handle("one")
    talk.handle("two")
    assert [request.dslm for request in parrot.asked] == [OwnOptions(route), OwnOptions(route)]
