"""A frozen A that is made from a seed: many adapters share it, and none has to carry it.

Knows arithmetic only. Every machine gets the same numbers: they come from SHAKE-256, are computed
in fp64 and rounded to what bf16 holds, where the last bits of a library do not show.
"""

import hashlib
import math
from functools import partial

import numpy as np
import torch
from torch import Tensor


def frozen_a(seed: int, name: str, rank: int, columns: int) -> Tensor:
    """fp32 `[rank, columns]` with orthonormal rows (to bf16), a function of its arguments alone.

    `ValueError` if there are more rows than columns. Random orthonormal rows as in arXiv
    2308.03303 (LoRA-FA trains B alone on a random A).
    """
    if rank > columns:
        raise ValueError(f"{rank} rows of {columns} numbers cannot be orthogonal")
    stream = partial(hashlib.shake_256, f"dslm-frozen-a-1 {seed} {name} {rank} {columns}".encode())
    words = np.frombuffer(stream().digest(8 * rank * columns), dtype="<u4").astype(np.float64)
    uniform = ((words + 0.5) / 2**32).reshape(2, columns, rank)
    normal = np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * math.pi * uniform[1])
    basis, triangle = np.linalg.qr(normal)
    # QR is unique but for signs, which libraries choose differently.
    rows = (basis * np.sign(np.diagonal(triangle))).T
    return torch.from_numpy(np.ascontiguousarray(rows)).bfloat16().float()
