"""Reading an answer's event stream."""

from collections.abc import Generator

import pytest

from node.cli.answering import (
    ChatMessage,
    ChatRequest,
    Note,
    Report,
    Share,
    StreamOptions,
    Usage,
    ask_streaming,
    ask_whole,
    closing_line,
    spoken_text,
)
from node.cli.client import ApiError, Client
from protocols.errors import PeerLost

REQUEST = ChatRequest(model="auto", messages=[ChatMessage("user", "hi")])
ROUTED = ': dslm {"phase":"routed","specialist":"base","peer":"P","why":"it is near","scores":{}}'
REPORT = '{"specialist":"base","peers":[{"peer":"P","tokens":2}],"first_token_ms":125.0}'


class Recorded(Client):
    """A client whose stream is written down."""

    def __init__(self, *lines: str) -> None:
        super().__init__("http://127.0.0.1:1")
        self.recorded = lines
        self.sent: object = None

    def lines(self, path: str, body: object) -> Generator[str, None, None]:
        assert path == "/v1/chat/completions"
        self.sent = body
        yield from self.recorded


def _piece(text: str) -> str:
    return f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}'


def _ignore(text: str) -> None:
    assert text


def _end(reason: str = "stop") -> str:
    return f'data: {{"choices":[{{"delta":{{}},"finish_reason":"{reason}"}}],"dslm":{REPORT}}}'


def test_pieces_notes_and_report() -> None:
    client = Recorded(
        ": ping", "", ROUTED, "", _piece("Hel"), "", _piece("lo"), _end("length"), "data: [DONE]"
    )
    texts: list[str] = []
    notes: list[Note] = []
    answer = ask_streaming(client, REQUEST, texts.append, notes.append)
    assert texts == ["Hel", "lo"]
    assert [(note.phase, note.why) for note in notes] == [("routed", "it is near")]
    assert (answer.text, answer.finish_reason) == ("Hello", "length")
    assert answer.report == Report("base", (Share("P", 2),), first_token_ms=125.0)
    assert isinstance(client.sent, ChatRequest)
    assert client.sent.stream is True


def _words(text: str, mark: str) -> str:
    return f'data: {{"choices":[{{"delta":{{"content":"{text}"}}}}],"dslm":{mark}}}'


def _debate() -> Recorded:
    steps = (
        '[{"step":0,"specialist":"law","text":"Yes."},{"step":1,"specialist":"tax","text":" No"}]'
    )
    end = f'{{"specialist":"tax","peers":[{{"peer":"P","tokens":2}}],"steps":{steps}}}'
    return Recorded(
        _words("-- law --\\n\\n", '{"step":0,"specialist":"law","heading":true}'),
        _words("Yes.", '{"step":0,"specialist":"law"}'),
        _words("\\n\\n-- tax --\\n\\n", '{"step":1,"specialist":"tax","heading":true}'),
        _words(" No", '{"step":1,"specialist":"tax"}'),
        f'data: {{"choices":[{{"delta":{{}},"finish_reason":"stop"}}],"dslm":{end}}}',
        "data: [DONE]",
    )


def test_lines_between_specialists_are_told_apart_from_their_words() -> None:
    texts: list[str] = []
    lines: list[str] = []
    answer = ask_streaming(_debate(), REQUEST, texts.append, None, lines.append)
    assert texts == ["Yes.", " No"]
    assert lines == ["-- law --\n\n", "\n\n-- tax --\n\n"]
    assert answer.text == "-- law --\n\nYes.\n\n-- tax --\n\n No"
    assert spoken_text(answer) == "Yes.\n\nNo"
    assert type(answer.report) is Report
    assert "specialists law, tax" in closing_line(answer.report, {})


def test_without_a_place_for_them_such_lines_are_text() -> None:
    texts: list[str] = []
    answer = ask_streaming(_debate(), REQUEST, texts.append)
    assert "".join(texts) == answer.text


def test_a_whole_answer_is_streamed_so_that_its_length_does_not_matter() -> None:
    usage = 'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
    client = Recorded(": ping", _piece("Hel"), _piece("lo"), _end(), usage, "data: [DONE]")
    answer = ask_whole(client, REQUEST)
    assert (answer.text, answer.usage) == ("Hello", Usage(5, 2))
    assert answer.report.specialist == "base"
    assert isinstance(client.sent, ChatRequest)
    assert client.sent.stream is True
    assert client.sent.stream_options == StreamOptions(include_usage=True)


def test_an_error_in_mid_stream_is_raised_after_the_text_before_it() -> None:
    error = 'data: {"error":{"message":"gone","type":"server_error","code":"no_capacity"}}'
    texts: list[str] = []
    with pytest.raises(ApiError, match="gone") as caught:
        ask_streaming(Recorded(_piece("Hel"), error, "data: [DONE]"), REQUEST, texts.append)
    assert texts == ["Hel"]
    assert caught.value.api_code == "no_capacity"


@pytest.mark.parametrize("lines", [[], [_piece("Hel")], [_piece("Hel"), "data: [DONE]"]])
def test_a_stream_that_just_ends_is_no_answer(lines: list[str]) -> None:
    with pytest.raises(PeerLost):
        ask_streaming(Recorded(*lines), REQUEST, _ignore)


def test_notes_of_later_versions_are_readable() -> None:
    note = ': dslm {"phase":"thinking","depth":3}'
    seen: list[Note] = []
    ask_streaming(Recorded(note, _end()), REQUEST, _ignore, seen.append)
    assert [one.phase for one in seen] == ["thinking"]


def test_the_closing_line() -> None:
    report = Report("base", (Share("P1", 3), Share("P2", 4)), "", 1250.0, 12.34, resumed=1)
    assert closing_line(report, {"P1": "alder"}) == (
        "[answered by alder (P1), P2 | specialist base | first token after 1.25 s | "
        "12.3 tokens/s | carried on by another peer 1 time(s)]"
    )
    assert "too short to time" in closing_line(Report("base"), {})
