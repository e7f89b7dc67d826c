"""What the coordinator needs from the node that carries it: an encoder and a local answerer.

Knows no implementation (`node.hosting.encoder`, `node.services.ask`) and no transport.
"""

from collections.abc import AsyncGenerator, Sequence
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


class Answerer(Protocol):
    """Answers an `Ask` with the messages of the ask protocol, ours or a remote peer's."""

    def answer(self, ask: Ask) -> AsyncGenerator[ServerMessage, None]:
        """Messages in protocol order; closing the generator cancels the generation.

        A refusal comes as its error (`Busy`, `NotHere`, `TooLong`, `Unsupported`), never as a
        message.
        """
        ...
