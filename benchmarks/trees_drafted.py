"""Trees of guessed tokens: where guesses come from, and how several make one tree.

Knows tokens of texts; must not know models or costs. The first branch is what the engine's own
drafters offer; further ones come from every other place where the last tokens occurred.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from node.engine.base import EngineRequest
from node.engine.speculation.drafts import Draft
from node.engine.speculation.suffixes import kind_of
from protocols.messages.ask import Sampling

LENGTH = 15
"""Tokens of a branch at most."""
_ORDERS = (4, 3, 2, 1)
_PLACES = 6
"""Of so many places for each order, the most recent, one looks where they lead."""


@dataclass(slots=True)
class Growing:
    """Implements `Text`: a prompt, and an answer that grows."""

    ticket: int
    salt: str
    request: EngineRequest
    tokens: list[int]

    @classmethod
    def of(cls, ticket: int, salt: str, prompt: Sequence[int]) -> "Growing":
        """Nothing said yet."""
        request = EngineRequest(str(ticket), tuple(prompt), 1024, Sampling(), frozenset())
        return cls(ticket, salt, request, list(prompt))


@dataclass(slots=True)
class Node:
    """A guessed token. `label` is how it was found: learned for each is how often it is right."""

    token: int
    label: str
    chance: float = 0.0
    value: float = 0.0
    """The chance that this one and all before it are right."""
    children: list["Node"] = field(default_factory=list)

    def child(self, token: int) -> "Node | None":
        """The branch with this token."""
        return next((one for one in self.children if one.token == token), None)


def grown(drafts: Iterable[Draft], branches: int) -> Node:
    """The tree of all `drafts`, most promising first; at most `branches` of any token.

    Its root is the last known token. A label says the rank among the branches of one token, the
    draft it came from, and whether it begins a branch.
    """
    root = Node(-1, "root")
    for draft in drafts:
        at = root
        is_new = False
        for token in draft.token_ids[:LENGTH]:
            found = at.child(token)
            if found is None:
                rank = len(at.children)
                if rank >= branches:
                    break
                begins = "" if is_new else " first"
                found = Node(token, f"{rank} {draft.kind}{begins}")
                at.children.append(found)
                is_new = True
            at = found
    return root


@dataclass(slots=True)
class Elsewhere:
    """All places of a client's texts where some run of tokens was followed by something."""

    tokens: list[int] = field(default_factory=list)
    _places: dict[tuple[int, ...], list[int]] = field(default_factory=lambda: defaultdict(list))

    def cover(self, tokens: Sequence[int]) -> None:
        """Go on with these."""
        for token in tokens:
            place = len(self.tokens)
            for order in _ORDERS:
                if place >= order:
                    self._places[tuple(self.tokens[-order:])].append(place)
            self.tokens.append(token)

    def drafts(self) -> Iterable[Draft]:
        """What followed the last tokens there: longer runs first, then the most recent."""
        for order in _ORDERS:
            places = self._places.get(tuple(self.tokens[-order:]), [])
            for place in places[: -_PLACES - 1 : -1]:
                onwards = self.tokens[place : place + LENGTH]
                if onwards:
                    yield Draft(onwards, f"elsewhere {kind_of(order)}", 0.1)


@dataclass(slots=True)
class Ranked:
    """For each token what the model itself found likeliest after it, the last time it stood there.

    Trees of these are "token recycling" (arXiv 2408.08696).
    """

    following: dict[int, Sequence[int]] = field(default_factory=dict)
    widths: Sequence[int] = (4, 2, 1, 1)

    def drafts(self, token: int) -> Iterable[Draft]:
        """From the likeliest path to the least."""
        for path in sorted(self._paths(token, 0), key=lambda path: sum(rank for _, rank in path)):
            yield Draft([one for one, _ in path], "recycled", 0.1)

    def _paths(self, token: int, depth: int) -> Iterable[list[tuple[int, int]]]:
        ranked = self.following.get(token, ())[: self.widths[depth]]
        for rank, one in enumerate(ranked):
            onwards = list(self._paths(one, depth + 1)) if depth + 1 < len(self.widths) else []
            yield from ([(one, rank), *path] for path in onwards or [[]])
