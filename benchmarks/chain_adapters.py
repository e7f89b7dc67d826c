"""Adapters for SmolLM2-135M that change next to nothing, for trials of everything around them.

Knows the compact form's writer and the model's shape; must not know nodes.
"""

from pathlib import Path

import torch

from node.engine.adapters.weights import PartName
from node.engine.weights.packings import Int8Rows
from node.hosting.compact_adapter import CompactConfig, write_compact

RANK, LAYERS = 4, 30
ROWS: dict[PartName, int] = {"query": 576, "value": 192}
FAINT = 1e-5
INVOCATION = (1, 520, 9531, 198)
"""`<|im_start|>assistant` and a line break: an activated adapter begins with the answer."""


def write_faint_adapter(folder: Path, seed: int, *, is_activated: bool = True) -> None:
    """An adapter with a digest of its own, so faint that answers are the base's."""
    generator = torch.Generator().manual_seed(seed)
    bs: dict[tuple[int, PartName], Int8Rows] = {}
    for layer in range(LAYERS):
        for part, rows in ROWS.items():
            codes = torch.randint(-127, 128, (rows, RANK), generator=generator, dtype=torch.int8)
            bs[layer, part] = Int8Rows(codes, torch.full((rows,), FAINT, dtype=torch.bfloat16))
    compact = CompactConfig(
        "dslm-adapter-1",
        seed=1,
        rank=RANK,
        scale=1.0,
        parts=tuple(ROWS),
        invocation=INVOCATION if is_activated else (),
    )
    write_compact(folder, compact, bs)
