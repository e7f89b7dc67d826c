"""What a chain remembers, and how much of it each next specialist can be told.

Knows the transcript, the room that cards say there is, and who read what; must not know when steps
begin. Text always; keys and values only by saying who has them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from coordinator.answer import Handed
from coordinator.chain import budget
from coordinator.chain.contender import Contender
from coordinator.chain.excerpt import excerpt
from coordinator.chain.transcript import Said, Transcript, lineage, source
from coordinator.routing.plan import Plan
from protocols.ids import PeerId, SpecialistId
from protocols.messages.ask import Chat
from protocols.records import CapabilityCard

CardsOf = Callable[[SpecialistId], Sequence[CapabilityCard]]
"""The living cards of a specialist that may be asked."""
CONTEXT_UNKNOWN = 2_048
"""Tokens that a specialist is taken to read if no card of it is known."""
_CHARACTERS_PER_TOKEN = 3.0
"""Fewer than usual, so that a prompt is not taken to be shorter than it is."""
_TURN_TOKENS = 8
"""What a chat template adds to a turn."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who has read a step's prompt and spoken."""

    specialist: SpecialistId
    peer: PeerId


class Memory:
    """Of one chain."""

    def __init__(self, prompt: Chat, plan: Plan, cards: CardsOf) -> None:
        self._steps = plan.steps
        self._cards = cards
        self._transcript = Transcript(prompt, plan)
        self._readers: dict[int, _Reader] = {}

    def prompt_for(self, index: int) -> Chat:
        """See `Transcript.prompt_for`."""
        return self._transcript.prompt_for(index)

    def reading(self, index: int, specialist: SpecialistId, peer: PeerId) -> None:
        """`specialist` at `peer` has read the prompt of step `index`."""
        self._readers[index] = _Reader(specialist, peer)

    def remember(self, index: int, speaker: Contender, answer_tokens: int) -> None:
        """Step `index` is over. Each later one shall have room for `answer_tokens` of its own."""
        answer = speaker.text.strip()
        if not answer:
            return
        if speaker.peer is not None:
            self.reading(index, speaker.specialist, speaker.peer)
        kept = excerpt(answer, self._room(index, speaker, answer_tokens))
        said = Said(index, speaker.specialist, kept, len(answer) - len(kept))
        self._transcript = self._transcript.with_answer(said)

    def handed(self, index: int, pages_at: PeerId | None) -> Handed:
        """What step `index` is given."""
        read = self._transcript.read_by(index)
        return Handed(
            steps=tuple(said.step for said in read),
            characters=sum(len(said.answer) for said in read),
            dropped=sum(said.dropped for said in read),
            pages_at=pages_at,
        )

    def pages_at(self, index: int, specialist: SpecialistId) -> PeerId | None:
        """Who has keys and values of the beginning of this step's prompt that it may use.

        That is so between specialists of one base that both begin with the answer: before it,
        keys and values are the base's own.
        """
        main = source(self._steps, index)
        reader = self._readers.get(main) if main is not None else None
        if reader is None:
            return None
        here, there = self._bases(specialist), self._bases(reader.specialist)
        return reader.peer if here & there else None

    def context(self, indices: Iterable[int]) -> int:
        """The tokens that every specialist of these steps can read and write."""
        cards = [card for at in indices for card in self._cards(self._steps[at].specialist)]
        return min((card.context_length for card in cards), default=CONTEXT_UNKNOWN)

    def _bases(self, specialist: SpecialistId) -> set[str]:
        """The bases whose pages all replicas of `specialist` can use."""
        cards = self._cards(specialist)
        if not cards or not all(card.is_activated and card.base_digest for card in cards):
            return set()
        return {card.base_digest for card in cards}

    def _room(self, index: int, speaker: Contender, answer_tokens: int) -> int:
        """Characters of the answer that there is room for in each prompt that will hold it."""
        later = [at for at in range(len(self._steps)) if index in lineage(self._steps, at)]
        answer, done = speaker.text.strip(), speaker.completed
        if not later or not speaker.tokens:
            return len(answer)
        if done is not None and done.prompt_tokens:
            used = done.prompt_tokens
        else:
            used = _tokens_of(self.prompt_for(index))
        wanted = [
            int(len(self._steps[at].prompt) / _CHARACTERS_PER_TOKEN) + answer_tokens + _TURN_TOKENS
            for at in later
        ]
        room = budget.memory_tokens(self.context([index, *later]), used, wanted)
        return min(len(answer), int(len(answer) * room / speaker.tokens))


def _tokens_of(chat: Chat) -> int:
    """About how many tokens `chat` has."""
    return sum(
        int(len(message.content) / _CHARACTERS_PER_TOKEN) + _TURN_TOKENS
        for message in chat.messages
    )
