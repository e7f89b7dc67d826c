"""What the services need of a hosted model: facts, a tokenizer, and generations to wait on.

Knows no torch; `node.hosting.hosted` is the real thing, `tests` use one on the fake engine.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from node.engine.base import EngineRequest, Matcher, StepOutput
from protocols.ids import PeerId, SpecialistId
from protocols.messages.ask import Ask, ChatMessage, Constraint, ServerMessage


class PeerAnswerer(Protocol):
    """Answers what peers ask: like `coordinator.ports.Answerer`, but knows who asks."""

    def answer(self, ask: Ask, peer: PeerId | None = None) -> AsyncGenerator[ServerMessage, None]:
        """Messages in protocol order for `peer`, None being this node itself."""
        ...


class IncrementalDecoder(Protocol):
    """Ids to text, piece by piece; never half a character. A pure function of the ids pushed."""

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes (may be empty)."""
        ...

    def flush(self) -> str:
        """What is still incomplete, at the end of the answer."""
        ...


class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        ...

    def encode_chat(self, messages: Sequence[ChatMessage], tools: str = "") -> tuple[int, ...]:
        """The conversation in the model's template, ready for the assistant's turn.

        `tools` is a JSON array as text. `Unsupported` if the model has no template, or one that
        refuses the conversation or knows no tools.
        """
        ...

    def encode_text(self, text: str) -> tuple[int, ...]:
        """A bare prompt."""
        ...

    def decoder(self) -> IncrementalDecoder:
        """For one answer, from its first id on."""
        ...

    def spelling(self, token_id: int) -> bytes:
        """What an id adds to the text, in UTF-8 or a part of it; empty for control tokens."""
        ...

    def matcher(self, constraint: Constraint) -> Matcher:
        """For one answer under `constraint`. May take a second; may be called in any thread.

        `Unsupported` if the constraint means nothing, or is too complex.
        """
        ...


class Generation(Protocol):
    """One request inside the engine."""

    async def next(self) -> StepOutput:
        """Wait for the next output; `DslmError` if the engine failed.

        Safe to cancel: an output that was not returned is returned by the next call.
        """
        ...

    def close(self) -> None:
        """Cancel if still running; harmless after the end."""
        ...


class ServedModel(Protocol):
    """A model in memory, ready to generate."""

    @property
    def specialist(self) -> SpecialistId:
        """The id under which peers ask for it."""
        ...

    @property
    def model_digest(self) -> str:
        """Names weights and tokenizer."""
        ...

    @property
    def plain(self) -> "ServedModel":
        """Its base, without an adapter, in its place; itself if it has none."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether it can answer; a model whose engine broke stays broken."""
        ...

    @property
    def slots(self) -> int:
        """Requests that run at once."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """This model's."""
        ...

    def generate(self, request: EngineRequest) -> Generation:
        """Hand a request to the engine."""
        ...
