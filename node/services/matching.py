"""From a client's constraint to a matcher, without letting it take the node's time.

Knows that compiling is slow and comes from strangers; must not know how it is done.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from node.engine.base import Matcher
from node.services.ports import Tokenizer
from protocols.errors import Unsupported
from protocols.messages.ask import Ask, Constraint


class Matching:
    """Compiles one constraint at a time, in a thread beside the event loop.

    A client that leaves while its constraint waits takes it along.
    """

    def __init__(self) -> None:
        # Its own thread: the next one waits even if the client of the present one has left.
        self._thread = ThreadPoolExecutor(1, "matching")

    async def matcher(self, tokenizer: Tokenizer, ask: Ask) -> Matcher | None:
        """The matcher of `ask`'s constraint, None if it has none.

        `Unsupported` if it cannot be compiled, or if the delivered ids are outside of it: then
        whoever gave them did not follow it, and nobody can go on.
        """
        constraint = ask.constraint
        if constraint is None:
            return None
        loop = asyncio.get_running_loop()
        matcher = await loop.run_in_executor(
            self._thread, _ready_matcher, tokenizer, constraint, ask.delivered
        )
        check_matcher(matcher)
        return matcher


def _ready_matcher(
    tokenizer: Tokenizer, constraint: Constraint, delivered: tuple[int, ...]
) -> Matcher:
    matcher = tokenizer.matcher(constraint)
    if delivered:
        matcher.allowed(delivered)
    return matcher


def check_matcher(matcher: Matcher | None) -> None:
    """`Unsupported` if an answer could not be kept within its constraint."""
    if matcher is not None and matcher.failure:
        raise Unsupported(f"The answer's constraint cannot be followed: {matcher.failure}")
