"""How well an adapter foretells answers: nats for each item, and the choice among first tokens.

Knows the forward pass; must not know domains, statistics or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from node.training.base import FrozenBase
from node.training.batches import Batch, scoring_batches
from node.training.examples import TokenRow
from node.training.forward import applied, hidden_states
from node.training.low_rank import LowRankParameters

_TOKENS = 65_536
_LOGIT_ROWS = 8_192
"""So many logits, of a whole vocabulary each, lie in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Of each row: `nats` fp64, summed over its answer `tokens` int64, and which of the candidate
    tokens is the likeliest as the first of the answer (`chosen` int64; 0 without candidates).
    """

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    chosen: NDArray[np.int64]

    @property
    def per_token(self) -> float:
        """Nats per answer token over all rows."""
        return float(self.nats.sum() / self.tokens.sum())


@torch.inference_mode()
def score(
    base: FrozenBase,
    adapter: LowRankParameters | None,
    rows: Sequence[TokenRow],
    *,
    activated: bool = False,
    candidates: Sequence[int] = (),
    tokens: int = _TOKENS,
) -> Scores:
    """Of `rows` in their order, `tokens` (padding included) at a time."""
    nats = np.zeros(len(rows))
    chosen = np.zeros(len(rows), dtype=np.int64)
    for order, batch in scoring_batches(rows, tokens):
        moved = batch.to(base.device)
        on = None
        if adapter is not None:
            on = applied(adapter, moved.begins if activated else None, moved.ids.shape[1])
        hidden = hidden_states(base, moved.ids, on)[moved.where]
        nats[order] = _nats(base, hidden, moved, len(order))
        if candidates:
            chosen[order] = _chosen(base, hidden, moved, candidates)
    counts = np.array([row.answer_tokens for row in rows], dtype=np.int64)
    return Scores(nats, counts, chosen)


def _nats(base: FrozenBase, hidden: Tensor, batch: Batch, rows: int) -> NDArray[np.float64]:
    total = torch.zeros(rows, dtype=torch.float64, device=base.device)
    for at in range(0, len(hidden), _LOGIT_ROWS):
        part = slice(at, at + _LOGIT_ROWS)
        logits = (hidden[part] @ base.head.t()).float()
        surprise = cross_entropy(logits, batch.targets[part], reduction="none")
        total.index_add_(0, batch.row[part], surprise.double())
    result: NDArray[np.float64] = total.cpu().numpy()
    return result


def _chosen(
    base: FrozenBase, hidden: Tensor, batch: Batch, candidates: Sequence[int]
) -> NDArray[np.int64]:
    is_first = torch.ones(len(batch.row), dtype=torch.bool, device=base.device)
    is_first[1:] = batch.row[1:] != batch.row[:-1]
    logits = (hidden[is_first] @ base.head[list(candidates)].t()).float()
    result: NDArray[np.int64] = logits.argmax(dim=1).cpu().numpy()
    return result
