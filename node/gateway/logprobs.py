"""OpenAI's shapes of how likely each token of an answer was, for both endpoints.

Knows those shapes and the protocol's likelihoods; must not know answers as a whole.
"""

import codecs
from collections.abc import Sequence

from msgspec import Struct

from protocols.messages.ask import Likelihood


class ChatTop(Struct, frozen=True):
    """A token that was likely; `bytes` are its part of the UTF-8 text."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


class ChatToken(Struct, frozen=True):
    """A token of the answer, and the likeliest in its place."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[ChatTop, ...]


class ChatLogprobs(Struct, frozen=True):
    """Of the tokens whose text is visible."""

    content: tuple[ChatToken, ...]
    refusal: None = None


class TextLogprobs(Struct, frozen=True):
    """The same for completions, in columns; `text_offset` counts characters of the answer."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, float], ...]
    text_offset: tuple[int, ...]


def chat_logprobs(found: Sequence[Likelihood]) -> ChatLogprobs:
    """The shape for chat."""
    return ChatLogprobs(
        tuple(
            ChatToken(
                _text(one.spelling),
                one.logprob,
                tuple(one.spelling),
                tuple(
                    ChatTop(_text(top.spelling), top.logprob, tuple(top.spelling))
                    for top in one.top
                ),
            )
            for one in found
        )
    )


class TextLogprobsMaker:
    """Makes the shapes of one completion, piece by piece."""

    def __init__(self) -> None:
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0

    def make(self, found: Sequence[Likelihood]) -> TextLogprobs:
        """The shape for the tokens that come next."""
        offsets = []
        for one in found:
            offsets.append(self._offset)
            self._offset += len(self._characters.decode(one.spelling))
        return TextLogprobs(
            tuple(_text(one.spelling) for one in found),
            tuple(one.logprob for one in found),
            tuple(_by_text(one) for one in found),
            tuple(offsets),
        )


def _by_text(one: Likelihood) -> dict[str, float]:
    """Tokens that look alike (halves of characters) are told once, as the likeliest of them."""
    named: dict[str, float] = {}
    for top in one.top:
        named.setdefault(_text(top.spelling), top.logprob)
    named.setdefault(_text(one.spelling), one.logprob)
    return named


def _text(spelling: bytes) -> str:
    return spelling.decode(errors="replace")
