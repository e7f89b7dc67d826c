"""From a model name and a prompt to one specialist, with the reason in a sentence.

Knows the directory's cards and the encoder port; must not know peers' addresses or how they are
asked. Looking for unknown names on the network is the caller's business.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.answer import Score
from coordinator.measure import PeerMeasurements
from coordinator.ports import Encoder
from coordinator.routing.plan import Plan, Step
from coordinator.routing.score import THRESHOLD, rank_cards
from protocols.errors import NoCapacity
from protocols.ids import PeerId, SpecialistId
from protocols.messages.ask import Chat, Prompt, Text
from protocols.records import CapabilityCard

_SENTENCE = re.compile(r"[^.?!]+[.?!]*\s*")
ROUTED_CHARACTERS_MAX = 2_000
"""The encoder reads about 100 words; more would cost time and change nothing."""


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


_AS_IT_COMES = Wishes()


class Router:
    """Chooses for `auto`. Without an encoder that is always the plain base."""

    def __init__(
        self,
        encoder: Encoder | None,
        measurements: PeerMeasurements,
        threshold: float = THRESHOLD,
    ) -> None:
        self._encoder = encoder
        self._measurements = measurements
        self._threshold = threshold

    async def choose(self, prompt: Prompt, cards: Sequence[CapabilityCard], now: float) -> Choice:
        """The nearest specialist among `cards`, or the best base when none is near.

        `now` is monotonic. `NoCapacity` when there are no cards at all.
        """
        if not cards:
            raise NoCapacity("No peer with a model is known yet.")
        base = best_base(cards, self._measurements, now)
        scores = await self._scores(prompt, cards)
        return decide(scores, base, self._threshold, self._encoder is not None, cards)

    async def plan(
        self,
        prompt: Prompt,
        cards: Sequence[CapabilityCard],
        now: float,
        wishes: Wishes = _AS_IT_COMES,
    ) -> Plan:
        """As `choose`; a chain where neighbouring sentences lie nearest to different cards."""
        choice = await self.choose(prompt, cards, now)
        steps = () if wishes.is_single else await self._steps(prompt, cards)
        if len(steps) > 1:
            why = f"Parts of the prompt lie nearest to {', '.join(s.specialist for s in steps)}."
            return Plan("chain", steps, why, choice.scores)
        is_base = any(card.is_base for card in cards if card.specialist == choice.specialist)
        step = Step(choice.specialist)
        return Plan("base" if is_base else "one", (step,), choice.why, choice.scores)

    async def _steps(self, prompt: Prompt, cards: Sequence[CapabilityCard]) -> tuple[Step, ...]:
        """A step for each run of sentences that one specialist lies nearest to."""
        sentences = [s for s in _SENTENCE.findall(routed_text(prompt)) if len(s.strip()) > 15]
        encoder = self._encoder
        if encoder is None or len(sentences) < 2:
            return ()
        runs: list[tuple[SpecialistId, str]] = []
        for vector, sentence in zip(await encoder.encode(sentences), sentences, strict=True):
            scores = rank_cards(vector, cards, encoder.digest)
            if not scores or scores[0].score < self._threshold:
                return ()
            owner = scores[0].specialist
            if runs and runs[-1][0] == owner:
                runs[-1] = (owner, runs[-1][1] + sentence)
            else:
                runs.append((owner, sentence))
        return tuple(
            Step(owner, text.strip(), (at - 1,) if at else ())
            for at, (owner, text) in enumerate(runs)
        )

    async def _scores(self, prompt: Prompt, cards: Sequence[CapabilityCard]) -> tuple[Score, ...]:
        text = routed_text(prompt)
        encoder = self._encoder
        if encoder is None or not text:
            return ()
        if not any(card.prototypes and card.encoder == encoder.digest for card in cards):
            return ()
        vectors = await encoder.encode([text])
        return rank_cards(vectors[0], cards, encoder.digest)


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
