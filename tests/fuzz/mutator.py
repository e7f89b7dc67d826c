"""Endless inputs that are nearly right: good ones, changed where it hurts, from one seed.

Knows bytes and the places of values in them; must not know what a parser does with them. The same
seed and pool give the same inputs, whatever the machine.
"""

import random
import struct
from collections.abc import Callable, Sequence

from tests.fuzz.hostile import BOMBS, PIECES
from tests.fuzz.spans import Span, replace_span, spans_of
from tests.fuzz.target import Target

BOMB_SHARE = 0.002
_PURE_NOISE_SHARE = 0.02
_UNCHANGED_SHARE = 0.01
_BY_VALUE_SHARE = 0.6
_GOOD_SHARE = 0.6
_NOISE_BYTES_MAX = 80
_EDGES = tuple(
    struct.pack(form, number)
    for form, top in (("<I", 2**32), ("<Q", 2**64), (">I", 2**32), (">H", 2**16), ("B", 2**8))
    for number in (0, 1, top // 2 - 1, top // 2, top - 1)
)


class Mutator:
    """Draws inputs. `words` are extra pieces that the format of the target knows."""

    def __init__(
        self,
        seed: int,
        good: Sequence[bytes],
        style: str,
        words: Sequence[bytes] = (),
        bytes_max: int = 8_192,
        bomb_share: float = BOMB_SHARE,
    ) -> None:
        """`good` are inputs that the parser takes; six of ten draws begin with one of them."""
        rng = random.Random(seed)
        self._random = rng.random
        self._noise = rng.randbytes
        self._style = style
        self._bytes_max = bytes_max
        self._bombs_below = _PURE_NOISE_SHARE + bomb_share
        self._pieces = (*PIECES[style], *words, *words)
        self._bombs = BOMBS[style]
        self._good = [(data, spans_of(data, style)) for data in good]
        self._pool = self._good.copy()
        self._by_bytes: tuple[Callable[[bytes], bytes], ...] = (
            self._flip_bit,
            self._set_byte,
            self._set_edge,
            self._insert_piece,
            self._overwrite_with_piece,
            self._cut_out,
            self._cut_off,
            self._repeat,
            self._splice,
        )

    def add(self, data: bytes) -> None:
        """Draw from `data` too, good or not; an empty one is left out."""
        if data:
            self._pool.append((data, spans_of(data, self._style)))

    def draw(self) -> bytes:
        """The next input, at most `bytes_max` long unless it is one of the rare bombs."""
        chance = self._random()
        if chance < _PURE_NOISE_SHARE:
            return self._noise(self._below(_NOISE_BYTES_MAX))
        pool = self._good if self._random() < _GOOD_SHARE else self._pool
        data, spans = pool[self._below(len(pool))]
        if chance > 1 - _UNCHANGED_SHARE:
            return data
        if chance < self._bombs_below:
            return self._with_bomb(data, spans)
        rounds = 1
        if spans and self._random() < _BY_VALUE_SHARE:
            data = self._change_value(data, spans)
            rounds = (0, 0, 0, 1, 2)[self._below(5)]
        elif chance > 0.5:
            rounds = 1 + self._below(4)
        changes = self._by_bytes
        for _ in range(rounds):
            data = changes[self._below(len(changes))](data)
        return data[: self._bytes_max]

    def _below(self, bound: int) -> int:
        return int(self._random() * bound)

    def _piece(self) -> bytes:
        return self._pieces[self._below(len(self._pieces))]

    def _change_value(self, data: bytes, spans: Sequence[Span]) -> bytes:
        span = spans[self._below(len(spans))]
        choice = self._below(8)
        if choice < 4:
            new = self._piece()
        elif choice < 6:  # a value of another place or another document
            other, places = self._pool[self._below(len(self._pool))]
            if not places:
                return data
            place = places[self._below(len(places))]
            new = other[place.start : place.end]
        elif choice == 6:
            new = data[span.start : span.end] * 2
        else:
            new = b""
        return replace_span(data, span, new)

    def _with_bomb(self, data: bytes, spans: Sequence[Span]) -> bytes:
        bomb = self._bombs[self._below(len(self._bombs))]
        if spans:
            return replace_span(data, spans[self._below(len(spans))], bomb)
        at = self._below(len(data) + 1)
        return data[:at] + bomb + data[at:]

    def _flip_bit(self, data: bytes) -> bytes:
        if not data:
            return b"\x01"
        at = self._below(len(data))
        return data[:at] + bytes((data[at] ^ (1 << self._below(8)),)) + data[at + 1 :]

    def _set_byte(self, data: bytes) -> bytes:
        at = self._below(len(data) + 1)
        return data[:at] + bytes((self._below(256),)) + data[at + 1 :]

    def _set_edge(self, data: bytes) -> bytes:
        edge = _EDGES[self._below(len(_EDGES))]
        at = self._below(len(data) + 1)
        return data[:at] + edge + data[at + len(edge) :]

    def _insert_piece(self, data: bytes) -> bytes:
        at = self._below(len(data) + 1)
        return data[:at] + self._piece() + data[at:]

    def _overwrite_with_piece(self, data: bytes) -> bytes:
        at, piece = self._below(len(data) + 1), self._piece()
        return data[:at] + piece + data[at + len(piece) :]

    def _cut_out(self, data: bytes) -> bytes:
        at = self._below(len(data) + 1)
        return data[:at] + data[at + 1 + self._below(16) :]

    def _cut_off(self, data: bytes) -> bytes:
        return data[: self._below(len(data) + 1)]

    def _repeat(self, data: bytes) -> bytes:
        at = self._below(len(data) + 1)
        end = at + 1 + self._below(32)
        return data[:end] + data[at:end] * (1 + self._below(3)) + data[end:]

    def _splice(self, data: bytes) -> bytes:
        other = self._pool[self._below(len(self._pool))][0]
        return data[: self._below(len(data) + 1)] + other[self._below(len(other)) :]


def mutator_of(target: Target, known: Sequence[bytes], seed: int) -> Mutator:
    """A mutator of a target's good inputs and the `known` ones."""
    bomb_share = BOMB_SHARE if target.takes_bombs else 0.0
    mutator = Mutator(
        seed,
        [data for data in target.seeds if data],
        target.style,
        target.words,
        target.bytes_max,
        bomb_share,
    )
    for data in known:
        mutator.add(data)
    return mutator
