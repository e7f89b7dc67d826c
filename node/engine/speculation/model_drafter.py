"""Drafts from a smaller model of the same vocabulary, with a cache of its own.

Knows how a draft model runs; must not know the model it drafts for.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.engine.pages import BlockTable, PageBook, PrefixScope, pages_for
from node.engine.selection import select
from node.engine.speculation.drafts import Draft, Text


class ModelDrafter:
    """Implements `Drafter`. Texts that do not fit `cache_tokens` with the others get no drafts.

    It chooses by the request's own sampling and with the random numbers of the positions, so where
    the two models agree roughly, what they draw mostly agrees too. Constraints are left out: a
    forbidden guess costs time only.
    """

    def __init__(self, model: LlamaModel, cache_tokens: int, step_tokens: int = 128) -> None:
        self._model = model
        self._cache = KeyValueCache(model.config, cache_tokens, model.dtype)
        self._book = PageBook(pages_for(cache_tokens))
        self._step_tokens = step_tokens
        self._texts: dict[int, BlockTable] = {}

    def __repr__(self) -> str:
        return f"<ModelDrafter texts={len(self._texts)} {self._book!r}>"

    @property
    def pages_used(self) -> int:
        """Pages of texts inside."""
        return self._book.used

    @property
    def is_free(self) -> bool:
        """Each token is a step of the draft model."""
        return False

    def propose(self, text: Text, most: int) -> Draft | None:
        """See `Drafter`. Reads first what is new in the text."""
        scope = PrefixScope("draft", text.salt)
        table = self._texts.setdefault(text.ticket, BlockTable(scope))
        tokens = list(text.tokens)
        if not self._book.grow(table, len(tokens) + most - 1):
            return None
        request = replace(text.request, matcher=None)
        prompt = len(request.prompt)
        logits = self._read(table, tokens)
        guesses: list[int] = []
        while True:
            answer = [*tokens[prompt:], *guesses]
            guesses.append(select(logits, request, answer).token_id)
            if len(guesses) == most:
                return Draft(guesses, "model", 0.5)
            position = len(tokens) + len(guesses) - 1
            logits = self._run(table, guesses[-1:], position)

    def leave(self, text: Text) -> None:
        """See `Drafter`."""
        table = self._texts.pop(text.ticket, None)
        if table is not None:
            self._book.release(table)

    def _read(self, table: BlockTable, tokens: Sequence[int]) -> Tensor:
        """Logits after the last token; what was guessed before is written over."""
        while True:
            chunk = tokens[table.committed : table.committed + self._step_tokens]
            logits = self._run(table, chunk, table.committed)
            self._book.commit(table, tokens, len(chunk))
            if table.committed == len(tokens):
                return logits

    def _run(self, table: BlockTable, token_ids: Sequence[int], position: int) -> Tensor:
        chunk = Chunk(token_ids, position, table.pages, logits=1)
        return self._model.forward(build_batch([chunk], self._model.dtype), self._cache)[0]
