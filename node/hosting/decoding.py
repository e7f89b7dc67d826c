"""From token ids to text, one id at a time, without ever showing half a character.

Knows how a tokenizer's decoder joins tokens. The text is a function of the ids alone, so a peer
that is primed with the same ids goes on with the same text.
"""

import codecs
import re
from collections.abc import Sequence
from typing import Protocol

from tokenizers import Tokenizer, decoders

from node.hosting.panics import no_panic

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class IncrementalDecoder(Protocol):
    """All pushes and the flush joined are the tokenizer's text of all the ids."""

    def push(self, token_id: int) -> str:
        """What this id lets be said now; empty while a character is incomplete."""
        ...

    def flush(self) -> str:
        """What was held back, at the end of the answer. The decoder is spent then."""
        ...


def make_decoder(tokenizer: Tokenizer, delivered: Sequence[int] = ()) -> IncrementalDecoder:
    """A decoder that has seen `delivered` already, and whose text so far was shown by others."""
    made: IncrementalDecoder
    if isinstance(tokenizer.decoder, decoders.ByteLevel):
        made = _ByteLevelDecoder(tokenizer)
    else:
        made = _WindowDecoder(tokenizer)
    for token_id in delivered:
        made.push(token_id)
    return made


def byte_spelling() -> dict[str, int]:
    """GPT-2's alphabet: the printable character that stands for each byte (its `encoder.py`)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    spelling = {chr(byte): byte for byte in plain}
    return spelling | {chr(256 + index): byte for index, byte in enumerate(others)}


def _special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(token_id for token_id, token in added.items() if token.special)


class Spellings:
    """What each id of a tokenizer adds to the text, as bytes; nothing for control tokens.

    Exact for vocabularies in which every token is a string of bytes; for others as in the middle of
    a text (at its beginning a space may be dropped).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = _special_ids(tokenizer)
        is_byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
        self._alphabet = byte_spelling() if is_byte_level else None

    def of(self, token_id: int) -> bytes:
        """Empty also for an id that is none."""
        token = None if token_id in self._special else self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if self._alphabet is None:
            is_byte = _BYTE_TOKEN.fullmatch(token)
            return bytes([int(token[3:5], 16)]) if is_byte else token.replace("▁", " ").encode()
        try:
            return bytes(self._alphabet[character] for character in token)
        except KeyError:
            # An added token is spelled as itself, not in the byte alphabet.
            return token.encode()


class _ByteLevelDecoder:
    """For vocabularies in which every token is a string of bytes: constant work for each id."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._spellings = Spellings(tokenizer)
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self._characters.decode(self._spellings.of(token_id))

    def flush(self) -> str:
        return self._characters.decode(b"", final=True)


class _WindowDecoder:
    """For any other tokenizer: decodes the ids since the last sure point, after a few before it.

    The ids before are there because joining depends on what stands before (a leading space is
    dropped at the start of a text only).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = _special_ids(tokenizer)
        self._before: list[int] = []
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        token = self._tokenizer.id_to_token(token_id)
        if token is None or token_id in self._special:
            return ""
        self._pending.append(token_id)
        # A run of byte tokens is valid or not as a whole, so it has to end first.
        return "" if _BYTE_TOKEN.fullmatch(token) else self._take()

    def flush(self) -> str:
        return self._take()

    def _take(self) -> str:
        shown = len(self._decode(self._before))
        text = self._decode(self._before + self._pending)[shown:]
        self._before, self._pending = (self._pending or self._before), []
        return text

    def _decode(self, ids: list[int]) -> str:
        with no_panic():
            return self._tokenizer.decode(ids, skip_special_tokens=True)
