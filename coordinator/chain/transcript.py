"""The memory of a chain as text: the prompt, the plan, and who said what in which step.

Knows values only; must not know tokens, peers or how long anything may be. Pure.

A step's messages begin with exactly those of the step that it goes on from, so that whoever has
read those has read the beginning of these: keys and values can be used again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coordinator.routing.plan import Plan, Step
from protocols.ids import SpecialistId
from protocols.messages.ask import Chat, ChatMessage


@dataclass(frozen=True, slots=True)
class Said:
    """What one step said, as it is remembered; `dropped` characters of it were left out."""

    step: int
    specialist: SpecialistId
    answer: str
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Transcript:
    """Grows with every step that said something."""

    prompt: Chat
    plan: Plan
    said: tuple[Said, ...] = ()

    def with_answer(self, said: Said) -> "Transcript":
        """With one more step's word."""
        return replace(self, said=(*self.said, said))

    def read_by(self, index: int) -> tuple[Said, ...]:
        """What step `index` is told, in the order in which it reads it."""
        by_step = {one.step: one for one in self.said}
        return tuple(by_step[at] for at in lineage(self.plan.steps, index) if at in by_step)

    def prompt_for(self, index: int) -> Chat:
        """The conversation that step `index` answers."""
        turns = list(_opening(self.prompt))
        for said in self.read_by(index):
            turns += self._question(said.step)
            turns.append(ChatMessage("assistant", said.answer))
        return Chat((*turns, *self._question(index)), self.prompt.tools)

    def _question(self, index: int) -> Sequence[ChatMessage]:
        """The turns that ask step `index`: its sub-prompt, or what the client asked."""
        asked = self.plan.steps[index].prompt
        if asked:
            return (ChatMessage("user", asked),)
        return self.prompt.messages[len(_opening(self.prompt)) :]


def source(steps: Sequence[Step], index: int) -> int | None:
    """The step that `index` goes on from: of those that it needs the deepest, then the first."""
    return max(steps[index].after, key=lambda at: (len(lineage(steps, at)), -at), default=None)


def lineage(steps: Sequence[Step], index: int) -> tuple[int, ...]:
    """The steps whose words step `index` reads, in order: first its source with all that it read.

    So what `source` read and was asked is a prefix of what this step reads.
    """
    main = source(steps, index)
    if main is None:
        return ()
    order = dict.fromkeys((*lineage(steps, main), main))
    for other in steps[index].after:
        order |= dict.fromkeys((*lineage(steps, other), other))
    return tuple(order)


def _opening(prompt: Chat) -> Sequence[ChatMessage]:
    """What stands before the user's last turns."""
    messages = prompt.messages
    count = len(messages)
    while count and messages[count - 1].role == "user":
        count -= 1
    return messages[:count]
