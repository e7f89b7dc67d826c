"""Texts for drafters, without an engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.engine.base import EngineRequest
from protocols.messages.ask import Sampling


@dataclass(eq=False)
class Plain:
    """Implements `Text`."""

    tokens: list[int]
    ticket: int = 1
    salt: str = ""
    request: EngineRequest = field(
        default_factory=lambda: EngineRequest("r", (0,), 9, Sampling(), frozenset())
    )


def written(prompt: Sequence[int], answer: Sequence[int], ticket: int, salt: str = "") -> Plain:
    request = EngineRequest(str(ticket), tuple(prompt), 999, Sampling(), frozenset())
    return Plain([*prompt, *answer], ticket, salt, request)
