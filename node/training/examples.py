"""Prompts with the answers that an adapter is to learn, as text and as tokens.

Knows a model's chat format; must not know where examples come from or how they are learnt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.hosting.tokenizer import ChatTokenizer
from protocols.messages.ask import ChatMessage

_MARK = "\u2042"
"""Stands for the prompt while the chat template is rendered once for all examples."""


@dataclass(frozen=True, slots=True)
class Example:
    """One turn: `prompt` by the user, `answer` by the assistant.

    Without a `system` text the model's own default stands there. `source` names the set and its
    part, for tables. An answer that is not `is_whole` has no end token: what follows is not asked.
    The tokens of each line of the answer up to its first colon count `line_weight` times as much
    as others.
    """

    prompt: str
    answer: str
    source: str = ""
    system: str = ""
    is_whole: bool = True
    line_weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class TokenRow:
    """An example in tokens: `ids` int32; the answer begins at `answer`, its header at `header`.

    `weights` fp32 says how much each answer token counts in training; None is 1 for all.
    """

    ids: NDArray[np.int32]
    answer: int
    header: int
    weights: NDArray[np.float32] | None = None

    @property
    def answer_tokens(self) -> int:
        """How many tokens are learnt or scored."""
        return len(self.ids) - self.answer


class ChatFormat:
    """Puts examples into a model's chat format, many at a time."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        """`ValueError` for a model without a chat template or a token that ends an answer."""
        if tokenizer.template is None or not tokenizer.stop_ids:
            raise ValueError("a model without a chat format cannot be trained on examples")
        self._tokenizer = tokenizer
        self._template = tokenizer.template
        self.end = min(tokenizer.stop_ids)
        self.header = self.header_ids()
        self._newline = self._encode(["\n"])[0][-1]
        words = tokenizer.tokenizer.get_vocab()
        self._colons = frozenset(token for word, token in words.items() if ":" in word)

    def header_ids(self) -> tuple[int, ...]:
        """The tokens with which the assistant's turn begins: what invokes an activated adapter."""
        _, after = self._around("")
        start = after.rfind("<|im_start|>")
        return tuple(self._encode([after[max(start, 0) :]])[0])

    def rows(self, examples: Sequence[Example], longest: int) -> list[TokenRow]:
        """In tokens, in order; cut after `longest` tokens.

        An example whose prompt alone leaves no room for an answer loses the middle of its prompt.
        """
        systems = sorted({example.system for example in examples})
        around = {system: self._around(system) for system in systems}
        prompts = self._encode(
            [example.prompt.join(around[example.system]) for example in examples]
        )
        answers = self._encode([example.answer for example in examples])
        return [
            self._row(example, prompt, answer + [self.end] * example.is_whole, longest)
            for example, prompt, answer in zip(examples, prompts, answers, strict=True)
        ]

    def first_ids(self, texts: Sequence[str]) -> list[int]:
        """The first token of each text, as an answer."""
        return [ids[0] for ids in self._encode(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        """As `ChatTokenizer.decode`."""
        return self._tokenizer.decode(ids)

    def _row(
        self, example: Example, prompt: list[int], answer: list[int], longest: int
    ) -> TokenRow:
        room = longest - min(len(answer), longest // 4)
        if len(prompt) > room:
            head = room // 2
            prompt = prompt[:head] + prompt[head - room :]
        ids = np.array((prompt + answer)[:longest], dtype=np.int32)
        weights = None
        if example.line_weight != 1:
            weights = np.fromiter(self._line_weights(answer, example.line_weight), np.float32)
            weights = weights[: len(ids) - len(prompt)]
        return TokenRow(ids, len(prompt), len(prompt) - len(self.header), weights)

    def _line_weights(self, answer: list[int], weight: float) -> Iterator[float]:
        is_head = True
        for token in answer:
            yield weight if is_head else 1.0
            is_head = token == self._newline or (is_head and token not in self._colons)

    def _around(self, system: str) -> tuple[str, str]:
        messages = [ChatMessage("system", system)] if system else []
        text = self._template.render([*messages, ChatMessage("user", _MARK)])
        before, _, after = text.partition(_MARK)
        return before, after

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._tokenizer.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]
