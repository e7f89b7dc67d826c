"""Text and conversations to token ids and back, for one model.

Knows the `tokenizers` library and chat templates; must not know which file a tokenizer came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from node.hosting.chat_template import ChatTemplate
from node.hosting.decoding import IncrementalDecoder, Spellings, make_decoder
from node.hosting.grammar import GrammarMatcher, Grammars
from node.hosting.panics import no_panic
from protocols.errors import Unsupported
from protocols.messages.ask import ChatMessage, Constraint


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """A model's tokenizer. All methods are pure and may be called from any thread.

    `first_ids` are put before a bare text, as the model's own settings say. Control tokens spelled
    out in a text (`<|im_end|>`) become control tokens, as in `transformers`.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    stop_ids: frozenset[int]
    first_ids: tuple[int, ...] = ()
    _spellings: Spellings = field(init=False, repr=False, compare=False)
    _grammars: Grammars = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """What is made from the others."""
        object.__setattr__(self, "_spellings", Spellings(self.tokenizer))
        object.__setattr__(self, "_grammars", Grammars(self.tokenizer, self.stop_ids))

    def encode_chat(self, messages: Sequence[ChatMessage], tools: str = "") -> tuple[int, ...]:
        """The conversation up to where the assistant speaks next; `tools` is a JSON array as text.

        `Unsupported` when the model has no chat template, or it refuses the conversation or knows
        no tools.
        """
        if self.template is None:
            raise Unsupported(
                "This model has no chat template. Use a plain text prompt (/v1/completions)."
            )
        text = self.template.render(messages, tools)
        return self._ids(text, add_special_tokens=False)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """A bare prompt, continued as it stands."""
        return self.first_ids + self._ids(text, add_special_tokens=True)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a whole answer, control tokens left out."""
        with no_panic():
            return self.tokenizer.decode(ids, skip_special_tokens=True)

    def decoder(self, delivered: Sequence[int] = ()) -> IncrementalDecoder:
        """A decoder for one answer, of which `delivered` was shown already."""
        return make_decoder(self.tokenizer, delivered)

    def spelling(self, token_id: int) -> bytes:
        """What an id adds to the text; see `Spellings`."""
        return self._spellings.of(token_id)

    def matcher(self, constraint: Constraint) -> GrammarMatcher:
        """For one answer under `constraint`; see `Grammars.matcher`."""
        return self._grammars.matcher(constraint)

    def _ids(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        with no_panic():
            return tuple(self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)
