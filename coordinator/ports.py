"""What the coordinator needs from the node that carries it: encoder, planner, local answerer.

Knows no implementation (`node.hosting.encoder`, `node.services.ask`) and no transport.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.messages.ask import Ask, ServerMessage


class Encoder(Protocol):
    """Turns sentences into directions."""

    @property
    def digest(self) -> str:
        """Names the weights and the tokenizer; prototypes made by another digest do not compare."""
        ...

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`[texts, dimensions]`, rows of unit length."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as directions: `whole` [dimensions] and `parts` [parts, dimensions].

    Rows have unit length; a part that the encoder did not see is all zeros.
    """

    whole: NDArray[np.float32]
    parts: NDArray[np.float32]


class PromptEncoder(Encoder, Protocol):
    """An encoder that also tells the parts of a prompt apart."""

    async def encode_prompt(
        self, text: str, parts: Sequence[tuple[int, int]] = ()
    ) -> EncodedPrompt:
        """`text` in one pass over all of it, and its `parts` (characters, begin and end)."""
        ...


class Planner(Protocol):
    """A language model that was trained to plan."""

    async def plan(self, question: str) -> str:
        """What it says to a question of `coordinator.routing.planner_text`; any text.

        A `DslmError` when it cannot; it takes no longer than a bound of its own.
        """
        ...


class Answerer(Protocol):
    """Answers an `Ask` with the messages of the ask protocol, ours or a remote peer's."""

    def answer(self, ask: Ask) -> AsyncGenerator[ServerMessage, None]:
        """Messages in protocol order; closing the generator cancels the generation.

        A refusal comes as its error (`Busy`, `NotHere`, `TooLong`, `Unsupported`), never as a
        message.
        """
        ...
