"""From a prompt and the cards that are known to a plan, with the reason in a sentence.

Knows the directory's cards, the encoder and the planner port; must not know peers' addresses or how
they are asked. Looking for unknown names on the network is the caller's business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from coordinator.answer import Score
from coordinator.measure import PeerMeasurements
from coordinator.ports import Encoder, Planner, PromptEncoder
from coordinator.routing.head import Head
from coordinator.routing.plan import Plan, Step
from coordinator.routing.planned import planned_steps
from coordinator.routing.score import THRESHOLD, rank_cards
from coordinator.routing.scoring import Scorer
from coordinator.routing.verdict import verdict
from protocols.errors import DslmError, NoCapacity
from protocols.ids import PeerId, SpecialistId
from protocols.messages.ask import Chat, Prompt, Text
from protocols.records import CapabilityCard

ROUTED_CHARACTERS_MAX = 3_000
"""The encoder reads some 400 words; more would cost time and change nothing."""
CHARACTERS_PER_TOKEN = 8
"""No text has so few tokens that more of its characters would fit: who refuses, surely cannot."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The specialist that shall answer, and why; `scores` by falling score, empty if unscored."""

    specialist: SpecialistId
    why: str
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request asks of a plan."""

    is_best_wanted: bool = False
    """Two specialists may answer the same prompt."""
    is_single: bool = False
    """One specialist only, whatever the prompt."""


Trust = Callable[[CapabilityCard], float]
"""How far a card is believed, in (0, 1]."""
_AS_IT_COMES = Wishes()


def _full_trust(_card: CapabilityCard) -> float:
    return 1.0


class Router:
    """Plans for `auto`. Without an encoder the plain base answers; without a head for that encoder
    the nearest card does, by cosine alone; without a planner the segments are the sub-prompts.
    """

    def __init__(
        self,
        encoder: Encoder | None,
        measurements: PeerMeasurements,
        threshold: float = THRESHOLD,
        head: Head | None = None,
        planner: Planner | None = None,
    ) -> None:
        self._encoder = encoder
        self._measurements = measurements
        self._threshold = threshold
        self._planner = planner
        self._scorer: Scorer | None = None
        if head is not None and _encodes_prompts(encoder) and encoder.digest == head.encoder:
            self._scorer = Scorer(encoder, head)

    async def plan(
        self,
        prompt: Prompt,
        cards: Sequence[CapabilityCard],
        now: float,
        wishes: Wishes = _AS_IT_COMES,
        trust: Trust = _full_trust,
    ) -> Plan:
        """Who of `cards` works on `prompt`, in which order.

        `now` is monotonic; cards that are trusted less are less likely. `NoCapacity` when there are
        no cards at all, or none that takes it.
        """
        text = routed_text(prompt)
        length = _length(prompt)
        fitting = [card for card in cards if takes(card, length)]
        if cards and not fitting:
            raise NoCapacity("No specialist that is known takes a prompt of this length and kind.")
        if self._scorer is None or not text or not fitting:
            return plan_of(await self.choose(prompt, fitting, now, trust), fitting)
        base = best_base(fitting, self._measurements, now)
        scored = await self._scorer.score(text, fitting, trust)
        if not scored.scores and base is None:
            return plan_of(decide((), base, self._threshold, True, fitting), fitting)
        if wishes.is_single:
            scored = replace(scored, chain=0.0)
        plan = verdict(scored, base, is_best_wanted=wishes.is_best_wanted and not wishes.is_single)
        return await self._confirmed(plan, text, fitting)

    async def learn(self, cards: Sequence[CapabilityCard]) -> None:
        """Read the descriptions of new `cards`, so that no prompt has to wait for it."""
        if self._scorer is not None:
            await self._scorer.learn(cards)

    async def choose(
        self,
        prompt: Prompt,
        cards: Sequence[CapabilityCard],
        now: float,
        trust: Trust = _full_trust,
    ) -> Choice:
        """The nearest specialist among `cards` by cosine, or the best base when none is near.

        `now` is monotonic; `trust` as for `rank_cards`. `NoCapacity` when there are no cards.
        """
        if not cards:
            raise NoCapacity("No peer with a model is known yet.")
        base = best_base(cards, self._measurements, now)
        scores = await self._scores(prompt, cards, trust)
        return decide(scores, base, self._threshold, self._encoder is not None, cards)

    async def _confirmed(self, plan: Plan, text: str, cards: Sequence[CapabilityCard]) -> Plan:
        """A chain as the planning model words it, or as it is where that says nothing valid."""
        if self._planner is None or plan.kind != "chain":
            return plan
        try:
            steps = await planned_steps(self._planner, plan, text, _descriptions(cards))
        except DslmError:
            return plan  # a planner that is busy or gone costs the wording, not the answer
        if not steps:
            return plan
        return replace(plan, steps=steps, why=f"{plan.why} The planning model worded the parts.")

    async def _scores(
        self, prompt: Prompt, cards: Sequence[CapabilityCard], trust: Trust
    ) -> tuple[Score, ...]:
        text = routed_text(prompt)
        encoder = self._encoder
        if encoder is None or not text:
            return ()
        if not any(card.prototypes and card.encoder == encoder.digest for card in cards):
            return ()
        vectors = await encoder.encode([text])
        return rank_cards(vectors[0], cards, encoder.digest, trust)


def decide(
    scores: Sequence[Score],
    base: SpecialistId | None,
    threshold: float,
    has_encoder: bool,
    cards: Sequence[CapabilityCard],
) -> Choice:
    """The choice that the scores lead to; pure."""
    found = tuple(scores)
    if found and found[0].score >= threshold:
        best = found[0]
        return Choice(
            best.specialist,
            f"The prompt lies nearest to {best.specialist} (cosine {best.score:.2f}).",
            found,
        )
    if base is not None:
        return Choice(base, _why_base(found, threshold, has_encoder), found)
    specialist = found[0].specialist if found else SpecialistId(min(c.specialist for c in cards))
    return Choice(specialist, f"No plain base is known, so {specialist} answers.", found)


def plan_of(choice: Choice, cards: Sequence[CapabilityCard]) -> Plan:
    """`choice` as a plan of one step."""
    is_base = any(card.is_base for card in cards if card.specialist == choice.specialist)
    scores = choice.scores
    margin = scores[0].score - scores[1].score if len(scores) > 1 else 0.0
    step = Step(choice.specialist)
    return Plan("base" if is_base else "one", (step,), choice.why, scores, margin)


def takes(card: CapabilityCard, characters: int) -> bool:
    """Whether `card` says that it takes text of such a length; answers need room too."""
    return characters <= CHARACTERS_PER_TOKEN * card.context_length and "text" in card.modalities


def best_base(
    cards: Sequence[CapabilityCard], measurements: PeerMeasurements, now: float
) -> SpecialistId | None:
    """The plain base with most replicas that are well, then the best measured, then by name."""
    peers: dict[SpecialistId, list[PeerId]] = {}
    for card in cards:
        if card.is_base:
            peers.setdefault(SpecialistId(card.specialist), []).append(PeerId(card.peer))

    def order(name: SpecialistId) -> tuple[int, float, SpecialistId]:
        hosts = peers[name]
        well = [peer for peer in hosts if not measurements.snapshot(peer, now).failing_for]
        best = min(measurements.expected_first_token(peer) for peer in hosts)
        return (-len(well), best, name)

    return min(peers, key=order, default=None)


def routed_text(prompt: Prompt) -> str:
    """What of a prompt is routed on: the last user messages in a row, or the text's end."""
    match prompt:
        case Text(text):
            return text[-ROUTED_CHARACTERS_MAX:].strip()
        case Chat(messages):
            said: list[str] = []
            for message in reversed(messages):
                if message.role == "user":
                    said.append(message.content)
                elif said:
                    break
            return "\n".join(reversed(said))[:ROUTED_CHARACTERS_MAX].strip()


def _length(prompt: Prompt) -> int:
    said = (prompt.text,) if isinstance(prompt, Text) else (m.content for m in prompt.messages)
    return sum(map(len, said))


def _why_base(scores: Sequence[Score], threshold: float, has_encoder: bool) -> str:
    if not has_encoder:
        return "No sentence encoder is installed here, so the plain base answers."
    if not scores:
        return "No specialist's card can be compared with the prompt, so the plain base answers."
    best = scores[0]
    return (
        f"No specialist is near: the nearest, {best.specialist}, has cosine {best.score:.2f}, "
        f"under {threshold:.2f}; the plain base answers."
    )


def _descriptions(cards: Sequence[CapabilityCard]) -> dict[SpecialistId, str]:
    return {SpecialistId(card.specialist): card.description for card in cards}


def _encodes_prompts(encoder: Encoder | None) -> TypeGuard[PromptEncoder]:
    return encoder is not None and hasattr(encoder, "encode_prompt")
