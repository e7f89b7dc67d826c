"""Ids to the text a client sees: whole characters only, and never any part of a stop string.

Knows the tokenizer's decoder; must not know who asked. The visible text is a function of the ids
alone, so a peer that takes over an answer and replays its ids continues at the same character.
"""

from collections.abc import Sequence

from node.services.ports import IncrementalDecoder


class AnswerText:
    """The visible text of one answer, as it grows."""

    def __init__(self, decoder: IncrementalDecoder, stop: Sequence[str] = ()) -> None:
        self._decoder = decoder
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False
        """Whether a stop string has come; nothing more will be visible."""

    def replay(self, ids: Sequence[int]) -> None:
        """Take ids whose text the client has already seen."""
        for token_id in ids:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        """The visible text that `token_id` adds."""
        if self.stopped:
            return ""
        self._held += self._decoder.push(token_id)
        return self._release()

    def finish(self) -> str:
        """The visible text that was held back in case more came."""
        if self.stopped:
            return ""
        self._held += self._decoder.flush()
        released = self._release()
        rest, self._held = self._held, ""
        return released if self.stopped else released + rest

    def _release(self) -> str:
        start = self._stop_start()
        if start is not None:
            self.stopped = True
            released, self._held = self._held[:start], ""
            return released
        safe = len(self._held) - self._possible_stop_length()
        released, self._held = self._held[:safe], self._held[safe:]
        return released

    def _stop_start(self) -> int | None:
        """Where the stop string begins that ends first, of several the longest.

        That is the one that would be seen first if letters came one by one: where the text ends
        must not depend on how it is cut into tokens.
        """
        found = [(at + len(text), at) for text in self._stop if (at := self._held.find(text)) >= 0]
        return min(found)[1] if found else None

    def _possible_stop_length(self) -> int:
        """Length of the longest end of the held text that may become a stop string."""
        longest = max((len(text) for text in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(text.startswith(self._held[-length:]) for text in self._stop):
                return length
        return 0
