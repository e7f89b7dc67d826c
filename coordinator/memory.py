"""What the steps of one task need to pass their memory on: a ticket, and who may see it.

Knows requests only; must not know pages or streams. Keys and values stay where they were computed;
the ticket is what lets the next step's peer fetch them.
"""

from dataclasses import replace
from random import Random

from coordinator.answer import AnswerRequest
from protocols.ids import PeerId

TICKET_BITS = 256
_PREPARED_TOKENS = 1


def new_ticket(rng: Random) -> str:
    """One for all steps of a task; `rng` must be the system's, for it must not be guessed."""
    return f"{rng.getrandbits(TICKET_BITS):064x}"


def with_ticket(request: AnswerRequest, rng: Random) -> AnswerRequest:
    """`request` with a ticket, its own if it has one. Steps made of it with `replace` keep it."""
    if request.memory_ticket:
        return request
    return replace(request, memory_ticket=new_ticket(rng))


def preparing(step: AnswerRequest, at: PeerId) -> AnswerRequest:
    """A request that has peer `at` read the prompt of `step` now, so that it is ready in time.

    `step` is what will be asked there, as far as it is known; the beginning of its prompt counts.
    One token is made, which nobody wants. Let it run on when the step itself is asked: the two
    share what is computed and what is fetched.
    """
    return replace(
        step,
        request_id=type(step.request_id)(f"{step.request_id[:60]}.p"),
        node=at,
        max_tokens=_PREPARED_TOKENS,
        stop=(),
        constraint=None,
    )
