"""Recorded answers played again: how many tokens a step settles with a chain, and with a tree.

Knows answers, guesses and what a step costs by rows; must not know models. Nothing is computed: an
answer that is known says which guesses would have been right.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from node.engine.speculation.acceptance import Acceptance
from node.engine.speculation.drafts import DRAFTED_MAX, Draft, Text
from node.engine.speculation.lookup import PromptLookup
from node.engine.speculation.store import SuffixStore
from trees_drafted import Elsewhere, Growing, Node, Ranked, grown

Source = Literal["drafters", "elsewhere", "recycling"]
SOURCES: tuple[Source, ...] = ("drafters", "elsewhere", "recycling")
"""The engine's own drafters; besides, every place where the last tokens occurred; and besides,
what the model itself ranked first to fourth after a token when it last stood there.
"""
Cost = Callable[[int], float]
"""Seconds of a step of so many rows."""
_MARGIN = 1.05
_LEAST = 0.02
"""As in the engine's own plan."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A greedy answer; `ranked` are the likeliest tokens at each of its positions, best first."""

    prompt: Sequence[int]
    answer: Sequence[int]
    ranked: Sequence[Sequence[int]]


@dataclass(slots=True)
class Tally:
    """What playing came to."""

    steps: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def accepted(self) -> float:
        """Guessed tokens that were right, for each step."""
        return (self.tokens - self.steps) / self.steps

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    def add(self, other: "Tally") -> None:
        """Both together."""
        self.steps += other.steps
        self.rows += other.rows
        self.tokens += other.tokens
        self.seconds += other.seconds


@dataclass(frozen=True, slots=True)
class Shape:
    """At most `branches` of one token (1 is a chain), of guesses from `source` and those before it.

    `rows` guessed tokens for each step; None for what a plan like the engine's finds best.
    """

    branches: int
    source: Source
    rows: int | None = None


@dataclass(slots=True)
class Rates:
    """How often tokens of each label were right, of all the texts: what is expected at first."""

    right: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)

    def note(self, label: str, *, is_right: bool) -> None:
        """One more."""
        self.tried[label] = self.tried.get(label, 0) + 1
        self.right[label] = self.right.get(label, 0) + is_right

    def prior(self, label: str) -> float:
        """Between 0 and 1."""
        return (self.right.get(label, 0) + 0.2) / (self.tried.get(label, 0) + 2)


class Client:
    """One client's texts in their order, with the drafters of an engine that answers them."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._free = (PromptLookup(), SuffixStore())
        self._elsewhere = Elsewhere()
        self._ranked = Ranked()

    def play(
        self, number: int, text: Recorded, rates: Rates, cost: Cost, *, learns: bool = False
    ) -> Tally:
        """Step through one answer. With `learns` one token at a time, to fill `rates`."""
        growing = Growing.of(number, "", text.prompt)
        self._elsewhere.cover(text.prompt)
        acceptance, tally = Acceptance(), Tally()
        at = 0
        while at < len(text.answer):
            tree = grown(self._drafts(growing, acceptance), self._shape.branches)
            now = len(growing.tokens)
            _weigh(tree, acceptance, rates, now)
            coming = text.answer[at:]
            tried = _chosen(tree, self._shape.rows, cost)
            came = 1 if learns else 1 + _right(tree, tried, coming[:-1])
            tally.add(Tally(1, 1 + len(tried), came, cost(1 + len(tried))))
            _observe(tree, acceptance, rates if learns else None, coming[:came], now)
            self._go_on(growing, text, at, came)
            at += came
        for drafter in self._free:
            drafter.leave(growing)
        return tally

    def _drafts(self, text: Growing, acceptance: Acceptance) -> Iterable[Draft]:
        """The engine's own first, the better one before the other."""
        now = len(text.tokens)
        found = [one for drafter in self._free if (one := _proposed(drafter, text))]
        yield from sorted(found, key=lambda one: -acceptance.chance(one.kind, one.prior, now))
        if self._shape.source != "drafters":
            yield from self._elsewhere.drafts()
        if self._shape.source == "recycling":
            yield from self._ranked.drafts(text.tokens[-1])

    def _go_on(self, growing: Growing, text: Recorded, at: int, came: int) -> None:
        for place in range(at, at + came):
            self._ranked.following[growing.tokens[-1]] = text.ranked[place]
            growing.tokens.append(text.answer[place])
        self._elsewhere.cover(text.answer[at : at + came])


def _proposed(drafter: PromptLookup | SuffixStore, text: Text) -> Draft | None:
    return drafter.propose(text, DRAFTED_MAX)


def _weigh(tree: Node, acceptance: Acceptance, rates: Rates, now: int) -> None:
    tree.value = 1.0
    stack = [tree]
    while stack:
        above = stack.pop()
        for node in above.children:
            node.chance = acceptance.chance(node.label, rates.prior(node.label), now)
            node.value = above.value * node.chance
            stack.append(node)


def _chosen(tree: Node, rows: int | None, cost: Cost) -> set[int]:
    """The nodes worth trying, by identity; of a chance that falls with depth each has its parent.

    As in `node.engine.speculation.plan`: the number that promises most tokens a second.
    """
    order = sorted(_below(tree), key=lambda node: -node.value)
    if rows is not None:
        return {id(node) for node in order[:rows]}
    order = [node for node in order[:DRAFTED_MAX] if node.value >= _LEAST]
    best, best_rate, tokens = 0, _MARGIN / cost(1), 1.0
    for count, node in enumerate(order, 1):
        tokens += node.value
        if tokens / cost(1 + count) > best_rate:
            best, best_rate = count, tokens / cost(1 + count)
    return {id(node) for node in order[:best]}


def _below(tree: Node) -> Iterable[Node]:
    """Parents before their children, and earlier branches before later ones."""
    for node in tree.children:
        yield node
        yield from _below(node)


def _right(tree: Node, tried: set[int], coming: Sequence[int]) -> int:
    at, right = tree, 0
    for token in coming:
        found = at.child(token)
        if found is None or id(found) not in tried:
            break
        at, right = found, right + 1
    return right


def _observe(
    tree: Node, acceptance: Acceptance, rates: Rates | None, came: Sequence[int], now: int
) -> None:
    """Every branch of a token that was right is judged, tried or not."""
    at: Node | None = tree
    for token in came:
        for node in at.children if at else ():
            acceptance.observe(Draft((node.token,), node.label, node.chance), (token,), now)
            if rates is not None:
                rates.note(node.label, is_right=node.token == token)
        at = at.child(token) if at else None


def played(texts: Sequence[Recorded], shape: Shape, cost: Cost) -> Tally:
    """All texts of one client, with what is expected learned from the very same texts: both a chain
    and a tree get the best that their guesses can be weighed by.
    """
    rates = Rates()
    client = Client(shape)
    for number, text in enumerate(texts):
        client.play(number, text, rates, cost, learns=True)
    tally, client = Tally(), Client(shape)
    for number, text in enumerate(texts):
        tally.add(client.play(number, text, rates, cost))
    return tally
