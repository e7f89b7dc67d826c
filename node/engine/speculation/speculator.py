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
        drafts = [self._draft(wish, len(wishes), spare) for wish in wishes]
        offers = [self._offer(*pair) for pair in zip(wishes, drafts, strict=True)]
        if not any(offer.length for offer in offers) or self._costs.seconds(1) is None:
            return [()] * len(wishes)
        lengths = spread(offers, len(wishes), spare, self._seconds)
        return [
            draft.token_ids[:length] if draft else ()
            for draft, length in zip(drafts, lengths, strict=True)
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

    def _draft(self, wish: Wish, rows: int, spare: int) -> Draft | None:
        """The most promising draft for one text; those of free drafters are judged in any case."""
        text = wish.text
        course = self._courses.setdefault(text.ticket, _Course())
        course.offered = [
            draft
            for drafter in self._free
            if (draft := drafter.propose(text, DRAFTED_MAX)) is not None
        ]
        best = max(course.offered, key=lambda one: self._chance(text, one), default=None)
        for kind, drafter in self._priced.items():
            chance = course.acceptance.chance(kind, _PRICED_PRIOR, len(text.tokens))
            if best is not None and self._chance(text, best) >= chance:
                continue
            length = self._worth(kind, Offer(chance, min(wish.most, spare)), rows)
            if length and (draft := self._timed(kind, drafter, text, length)) is not None:
                course.offered.append(draft)
                best = draft
        return best

    def _offer(self, wish: Wish, draft: Draft | None) -> Offer:
        if draft is None:
            return Offer(0.0, 0)
        return Offer(self._chance(wish.text, draft), min(wish.most, len(draft.token_ids)))

    def _chance(self, text: Text, draft: Draft) -> float:
        acceptance = self._courses[text.ticket].acceptance
        return acceptance.chance(draft.kind, draft.prior, len(text.tokens))

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
