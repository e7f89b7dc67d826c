"""A frozen A that is made from a seed: many adapters share it, and none has to carry it.

Knows arithmetic only. Every machine gets the same numbers: they come from SHAKE-256, are computed
in fp64 and rounded to what bf16 holds, where the last bits of a library do not show.
"""

import hashlib
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MakeA = Callable[[int, str, int, int], Tensor]
"""`frozen_a`, or something that remembers what it made."""


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
    return torch.from_numpy(_orthonormal(np.ascontiguousarray(normal.T))).bfloat16().float()


def _orthonormal(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """`rows` by modified Gram-Schmidt, in place: what QR gives with positive signs.

    Not `numpy.linalg.qr`: the threads of its library wait for each other for seconds on a busy
    machine, and an adapter has a hundred of these.
    """
    for at in range(len(rows)):
        rows[at] /= math.sqrt((rows[at] * rows[at]).sum())
        rest = rows[at + 1 :]
        rest -= (rest * rows[at]).sum(axis=1, keepdims=True) * rows[at]
    return rows
