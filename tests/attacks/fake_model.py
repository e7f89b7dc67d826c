"""A hosted model without weights, for a node under attack: the fake engine and bytes as tokens.

Knows the services' port; an honest client can compute the whole answer that it must get.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from node.engine.base import EngineRequest, Matcher
from node.engine.fake import FakeEngine, FakeOptions, fake_token
from node.engine.loop import EngineLoop, Generation
from protocols.errors import Unsupported
from protocols.ids import SpecialistId
from protocols.messages.ask import ChatMessage, Constraint

SPECIALIST = SpecialistId("fake")
_OPTIONS = FakeOptions(running=8)
_GREEDY_SEED = -1


class LetterDecoder:
    """One letter a token."""

    def push(self, token_id: int) -> str:
        """See `IncrementalDecoder`."""
        return chr(ord("a") + token_id % 26)

    def flush(self) -> str:
        """Nothing is ever held back."""
        return ""


class ByteTokenizer:
    """A token for each byte of the prompt."""

    stop_ids: frozenset[int] = frozenset()

    def encode_chat(
        self,
        messages: Sequence[ChatMessage],
        tools: str = "",  # noqa: ARG002
    ) -> tuple[int, ...]:
        """All that was said, in a row."""
        return self.encode_text("".join(message.content for message in messages))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Its bytes."""
        return tuple(text.encode())

    def decoder(self) -> LetterDecoder:
        """A new one."""
        return LetterDecoder()

    def spelling(self, token_id: int) -> bytes:
        """Its letter."""
        return LetterDecoder().push(token_id).encode()

    def matcher(self, constraint: Constraint) -> Matcher:
        """None: `Unsupported`."""
        raise Unsupported(f"no {type(constraint).__name__} here")


@dataclass(frozen=True, slots=True)
class FakeModel:
    """A `ServedModel`."""

    loop: EngineLoop
    tokenizer: ByteTokenizer
    specialist: SpecialistId = SPECIALIST
    model_digest: str = "fake"
    slots: int = _OPTIONS.running

    @property
    def plain(self) -> "FakeModel":
        """It has no adapter."""
        return self

    @property
    def context_length(self) -> int:
        """As the engine's."""
        return self.loop.context_length

    @property
    def healthy(self) -> bool:
        """As the engine's loop."""
        return self.loop.healthy

    def generate(self, request: EngineRequest) -> Generation:
        """As the engine's loop."""
        return self.loop.submit(request)


async def start_model() -> FakeModel:
    """A model that is ready; close its `loop` in the end."""
    loop = EngineLoop(FakeEngine(_OPTIONS))
    await loop.start()
    return FakeModel(loop, ByteTokenizer())


def right_answer(prompt: str, tokens: int) -> list[int]:
    """The ids that every honest fake model gives, greedily."""
    ids = ByteTokenizer().encode_text(prompt)
    size = _OPTIONS.vocabulary_size
    return [fake_token(ids, position, _GREEDY_SEED, size) for position in range(tokens)]
