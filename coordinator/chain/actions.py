"""What a chain wants done, as values: the carrier does these and nothing else.

Knows the shapes only.
"""

from dataclasses import dataclass

from coordinator.answer import AnswerRequest, Evidence
from coordinator.dispatch.actions import Emit, End
from coordinator.opinion import Question
from protocols.ids import PeerId, SpecialistId


@dataclass(frozen=True, slots=True)
class Key:
    """One specialist's try at one step."""

    step: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Begin:
    """Have `specialist` answer; report what comes under `key`."""

    key: Key
    specialist: SpecialistId
    request: AnswerRequest


@dataclass(frozen=True, slots=True)
class Drop:
    """Cancel an answer; nothing it reports matters any more."""

    key: Key


@dataclass(frozen=True, slots=True)
class Prepare:
    """`specialist` is going to be asked something like `request`: its prompt begins like that one.

    `request.memory_at` has read it, with the same base.
    """

    specialist: SpecialistId
    request: AnswerRequest


@dataclass(frozen=True, slots=True)
class Judge:
    """What an answer that was complete, or not wanted any more, says of `specialist` at `peer`."""

    specialist: SpecialistId
    peer: PeerId
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Compare:
    """Ask the base how likely it finds what was said under `key`; report that under it."""

    key: Key
    question: Question


Action = Begin | Drop | Prepare | Judge | Compare | Emit | End
