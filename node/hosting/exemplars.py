"""Which of many example prompts a card shows: those that stand best for its prototypes.

Knows texts, unit vectors and bounds; must not know encoders or cards.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from protocols import limits

_CUT_PENALTY = 0.1
"""By so much nearer a text that has to be cut must lie to come before one that is shown whole."""


def clip_text(text: str, bytes_max: int) -> str:
    """`text` without blanks around it, cut to `bytes_max` bytes of UTF-8 between characters."""
    return text.strip().encode("utf-8")[:bytes_max].decode("utf-8", "ignore").rstrip()


def choose_exemplars(
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    prototypes: NDArray[np.float32],
    count: int = limits.EXEMPLARS_MAX,
) -> tuple[str, ...]:
    """Up to `count` different texts, each within a card's bound, the most telling first.

    `vectors` [texts, dimensions] and `prototypes` [prototypes, dimensions] have rows of unit
    length. The prototypes take turns, each taking the text that lies nearest to it: so the first
    ones speak for all prototypes, and leaving out the last loses least.
    """
    nearness = vectors @ prototypes.T
    cut = [len(text.strip().encode("utf-8")) > limits.EXEMPLAR_BYTES_MAX for text in texts]
    nearness = nearness - _CUT_PENALTY * np.array(cut, dtype=np.float32)[:, None]
    queues = [iter(np.argsort(-column, kind="stable").tolist()) for column in nearness.T]
    chosen: dict[str, None] = {}
    while queues and len(chosen) < count:
        queues = [queue for queue in queues if _take_next(queue, texts, chosen, count)]
    return tuple(chosen)


def _take_next(
    queue: Iterator[int], texts: Sequence[str], chosen: dict[str, None], count: int
) -> bool:
    """Move the first new text of `queue` to `chosen`; whether there was one."""
    if len(chosen) >= count:
        return False
    for index in queue:
        text = clip_text(texts[index], limits.EXEMPLAR_BYTES_MAX)
        if text and text not in chosen:
            chosen[text] = None
            return True
    return False
