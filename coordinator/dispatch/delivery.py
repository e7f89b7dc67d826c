"""What the client holds of an answer so far: token ids without a gap or a repeat, and from whom.

Knows positions and bounds; must not know peers' health or who comes next.

Only ids count. What text a run of ids adds to the visible answer is a pure function of the ids
(`visible(ids[:n + k])` minus `visible(ids[:n])`), so a replacement that is handed the delivered ids
brings itself into the state that the lost peer was in: half of a UTF-8 character, or the beginning
of a stop string, that was held back there is held back here, and comes out with the first text
that makes it sure. The prompt, the seed and the ids being the same, so is the rest of the answer.
"""

from coordinator.answer import Delta, Share
from protocols import limits
from protocols.errors import ProtocolError
from protocols.ids import PeerId
from protocols.messages.ask import Finished, Tokens


class Delivery:
    """`max_tokens` 0 means that only the protocol's own bound holds."""

    def __init__(self, max_tokens: int) -> None:
        self._limit = max_tokens or limits.TOKENS_MAX
        self._ids: list[int] = []
        self._shares: dict[PeerId, int] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        """The answer so far."""
        return tuple(self._ids)

    @property
    def position(self) -> int:
        """Where the next token belongs."""
        return len(self._ids)

    @property
    def shares(self) -> tuple[Share, ...]:
        """Who gave how much, in order of first appearance."""
        return tuple(Share(peer, tokens) for peer, tokens in self._shares.items())

    def take(self, peer: PeerId, tokens: Tokens) -> Delta:
        """The news in `tokens`; `ProtocolError` if they do not follow what is there."""
        if tokens.position != self.position:
            raise ProtocolError(f"tokens at {tokens.position}, expected {self.position}")
        if self.position + len(tokens.ids) > self._limit:
            raise ProtocolError("more tokens than were asked for")
        self._ids += tokens.ids
        self._shares[peer] = self._shares.get(peer, 0) + len(tokens.ids)
        return Delta(peer, tokens.position, tokens.ids, tokens.text, tokens.logprobs)

    def check_end(self, finished: Finished) -> None:
        """`ProtocolError` if a peer's count of the answer differs from ours."""
        if finished.completion_tokens != self.position:
            raise ProtocolError("the answer's length differs from the tokens received")
