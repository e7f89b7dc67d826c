"""A tree of guessed tokens computed in one step of the eager model, and what is kept of it.

Knows batches, masks and pages; must not know where guesses come from. Exact: what is chosen is what
the model would choose alone, token by token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from node.engine.adapters.plan import Adaptation
from node.engine.batch import Chunk, Span, StepBatch, build_batch
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.engine.pages import PAGE_SIZE, pages_for


@dataclass(frozen=True, slots=True)
class Tree:
    """Guessed `tokens`; `parents[i]` is the place of the token before `tokens[i]`, always smaller
    than i, or -1 for the last token that is known.
    """

    tokens: Sequence[int] = ()
    parents: Sequence[int] = ()

    @property
    def depths(self) -> list[int]:
        """How many tokens after the known one each stands."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return depths


def tree_mask(tree: Tree, known: int, dtype: torch.dtype) -> Tensor:
    """`[1 + guesses, known + guesses]`, added to scores: of a known text of `known` tokens the last
    one, which sees all of it, and guesses, which besides see themselves and those they follow.
    """
    rows = 1 + len(tree.tokens)
    mask = torch.full((rows, known - 1 + rows), float("-inf"), dtype=dtype)
    mask[:, :known] = 0
    for row, parent in enumerate(tree.parents, 1):
        mask[row] = mask[parent + 1]
        mask[row, known - 1 + row] = 0
    return mask


def tree_batch(
    last: int, tree: Tree, known: int, pages: Sequence[int], model: LlamaModel
) -> StepBatch:
    """The last of `known` tokens and the guesses, all of which want logits.

    Keys and values of row i go to the slot of position `known - 1 + i`, whatever its depth.
    """
    rows = 1 + len(tree.tokens)
    first = known - 1
    chunk = Chunk([last, *tree.tokens], first, pages, logits=rows)
    chain = build_batch([chunk], model.dtype)
    span = chain.spans[0]
    positions = torch.tensor([first, *(first + depth for depth in tree.depths)])
    mask = tree_mask(tree, known, model.dtype)
    seen = Span(0, rows, span.seen, span.pages, span.first_slot, span.gather, mask)
    return StepBatch(chain.token_ids, positions, chain.slots, (seen,), chain.logit_rows)


@dataclass(slots=True)
class TreeReader:
    """One text, read by `model` into `pages` of `cache`, where `done` of its tokens are already.

    `adaptation` makes the plan of an adapter for tokens of these positions.
    """

    model: LlamaModel
    cache: KeyValueCache
    pages: Sequence[int]
    adaptation: Callable[[Sequence[int]], Adaptation | None] = lambda _positions: None
    done: int = 0

    def read(self, tokens: Sequence[int], chunk: int) -> None:
        """All but the last of `tokens`, `chunk` at a time."""
        for start in range(self.done, len(tokens) - 1, chunk):
            part = tokens[start : min(start + chunk, len(tokens) - 1)]
            batch = build_batch([Chunk(part, start, self.pages, logits=0)], self.model.dtype)
            self.model.forward(batch, self.cache, self._adapted(batch))

    def step(self, tokens: Sequence[int], tree: Tree) -> list[int]:
        """What greedily follows `tokens`: of the guesses those that are right, and one more."""
        batch = tree_batch(tokens[-1], tree, len(tokens), self.pages, self.model)
        logits = self.model.forward(batch, self.cache, self._adapted(batch))
        best = logits.argmax(-1).tolist()
        path, came = [0], [best[0]]
        while (row := _following(tree, path[-1], came[-1])) is not None:
            path.append(row)
            came.append(best[row])
        self._keep(len(tokens), path)
        return came

    def _adapted(self, batch: StepBatch) -> Adaptation | None:
        return self.adaptation(batch.positions.tolist())

    def _keep(self, known: int, path: Sequence[int]) -> None:
        """Copy keys and values of the accepted path to where a chain would have written them."""
        moved = [(row, place) for place, row in enumerate(path) if row != place]
        if not moved:
            return
        source, goal = (
            torch.tensor([self._slot(known - 1 + offset) for offset in offsets])
            for offsets in zip(*moved, strict=True)
        )
        for layer in self.cache._layers:
            keys, values = layer.copy(source)
            layer.store(goal, keys.transpose(0, 1), values.transpose(0, 1))

    def _slot(self, position: int) -> int:
        return self.pages[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE


def _following(tree: Tree, row: int, token: int) -> int | None:
    """The row of the guess `token` after row `row` of a step, if it was guessed."""
    for place, (guess, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True)):
        if parent == row - 1 and guess == token:
            return place + 1
    return None


def answer_by_trees(
    reader: TreeReader,
    prompt: Sequence[int],
    count: int,
    guess: Callable[[Sequence[int]], Tree],
    chunk: int = 64,
) -> tuple[list[int], int]:
    """`count` tokens after `prompt`, in steps of the trees that `guess` makes for the text so far;
    and how many steps it took. The pages must have room for the last tree too.
    """
    tokens, steps = list(prompt), 0
    reader.read(tokens, chunk)
    while len(tokens) < len(prompt) + count:
        tree = guess(tokens)
        if pages_for(len(tokens) + len(tree.tokens)) > len(reader.pages):
            raise ValueError("no room for this tree")
        tokens += reader.step(tokens, tree)
        steps += 1
    return tokens[len(prompt) : len(prompt) + count], steps
