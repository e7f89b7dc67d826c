"""What the gateway needs from the rest of the node to answer prompts.

Knows the coordinator's values only; must not know who implements it (`node.app` decides).
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from coordinator.answer import AnswerEvent, AnswerRequest, Routed


class AnswerSource(Protocol):
    """Answers prompts. The coordinator's dispatch is one."""

    def answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        """`Routed`, then `Waiting`, `Delta` and `Resumed` in any order, then `Completed`.

        A refusal is raised as a `DslmError`, before the first event or in the middle. Closing the
        generator, or cancelling the task that waits in it, ends the work for it everywhere.
        """
        ...

    async def route(self, request: AnswerRequest) -> Routed:
        """Who would answer, or begin, without asking anybody. A refusal is a `DslmError`."""
        ...
