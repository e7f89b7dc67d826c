"""Which drafts a step tries: asks the drafters, weighs what they offer, learns how it went.

Knows drafters, acceptance and costs; must not know pages, batches or tensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from node.engine.speculation.acceptance import Acceptance
from node.engine.speculation.costs import StepCosts
from node.engine.speculation.drafts import DRAFTED_MAX, Draft, Drafter, Text, Wish
from node.engine.speculation.plan import Offer, spread

_PRICED_PRIOR = 0.6
"""What is expected of a drafter that cannot be asked for nothing, before it was."""


@dataclass(slots=True)
class _Course:
    """One text's: what was offered for its next tokens, and how offers fared so far."""

    acceptance: Acceptance = field(default_factory=Acceptance)
    offered: list[Draft] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Promise:
    """The tokens of a draft, and the chance that each is right if those before it are."""

    token_ids: Sequence[int]
    chance: float


_NOTHING = _Promise((), 0.0)


class Speculator:
    """Implements `Speculation`.

    `costs` are learned by whoever runs the steps. `clock` (seconds) is for what drafting costs.
    Nothing is shared between texts but the costs and what the drafters themselves share.
    """

    def __init__(
        self, drafters: Sequence[Drafter], costs: StepCosts, clock: Callable[[], float]
    ) -> None:
        self._free = [one for one in drafters if one.is_free]
        self._priced = {f"drafter {n}": one for n, one in enumerate(drafters) if not one.is_free}
        self._drafting = {kind: StepCosts() for kind in self._priced}
        self._costs = costs
        self._clock = clock
        self._courses: dict[int, _Course] = {}

    def __repr__(self) -> str:
        return f"<Speculator texts={len(self._courses)}>"

    def plan(self, wishes: Sequence[Wish], spare: int) -> list[Sequence[int]]:
        """See `Speculation`. Drafts nothing before it is known what a step costs."""
        promises = [self._promise(wish, len(wishes), spare) for wish in wishes]
        offers = [
            Offer(promise.chance, min(wish.most, len(promise.token_ids)))
            for wish, promise in zip(wishes, promises, strict=True)
        ]
        if not any(offer.length for offer in offers) or self._costs.seconds(1) is None:
            return [()] * len(wishes)
        lengths = spread(offers, len(wishes), spare, self._seconds)
        return [
            promise.token_ids[:length] for promise, length in zip(promises, lengths, strict=True)
        ]

    def settle(self, text: Text, came: int) -> None:
        """See `Speculation`."""
        course = self._courses.get(text.ticket)
        if course is None or not came:
            return
        now = len(text.tokens)
        fresh = text.tokens[now - came :]
        for draft in course.offered:
            course.acceptance.observe(draft, fresh, now)
        course.offered.clear()

    def leave(self, text: Text) -> None:
        """See `Speculation`."""
        self._courses.pop(text.ticket, None)
        for drafter in (*self._free, *self._priced.values()):
            drafter.leave(text)

    def _promise(self, wish: Wish, rows: int, spare: int) -> _Promise:
        """The most promising draft for one text; those of free drafters are judged in any case."""
        text, now = wish.text, len(wish.text.tokens)
        course = self._courses.setdefault(text.ticket, _Course())
        course.offered = [
            draft
            for drafter in self._free
            if (draft := drafter.propose(text, DRAFTED_MAX)) is not None
        ]
        best = _NOTHING
        for draft in course.offered:
            chance = course.acceptance.chance(draft.kind, draft.prior, now)
            if chance > best.chance:
                best = _Promise(draft.token_ids, chance)
        for kind, drafter in self._priced.items():
            chance = course.acceptance.chance(kind, _PRICED_PRIOR, now)
            if best.chance >= chance:
                continue
            length = self._worth(kind, Offer(chance, min(wish.most, spare)), rows)
            if length and (found := self._timed(kind, drafter, text, length)) is not None:
                course.offered.append(found)
                best = _Promise(found.token_ids, chance)
        return best

    def _worth(self, kind: str, offer: Offer, rows: int) -> int:
        """How many tokens to ask a drafter for whose time counts."""
        if self._costs.seconds(1) is None or not offer.length:
            return 0
        drafting = self._drafting[kind]

        def seconds(count: int) -> float:
            drafted = count - rows
            return self._seconds(count) + ((drafting.seconds(drafted) or 0.0) if drafted else 0.0)

        return spread([offer], rows, offer.length, seconds)[0]

    def _timed(self, kind: str, drafter: Drafter, text: Text, length: int) -> Draft | None:
        started = self._clock()
        draft = drafter.propose(text, length)
        self._drafting[kind].learn(length, self._clock() - started)
        return None if draft is None else Draft(draft.token_ids, kind, _PRICED_PRIOR)

    def _seconds(self, rows: int) -> float:
        return self._costs.seconds(rows) or 1.0
