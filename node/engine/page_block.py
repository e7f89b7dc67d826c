"""Keys and values of a few pages outside of any cache, and as bytes for another peer.

Knows layers, heads and encodings; must not know how a runner lays its pages out, or who sends them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from protocols.errors import ProtocolError
from protocols.messages.memory import Encoding

MAGNITUDE_MAX = 16_384.0
"""No key or value of a sound model is as large; what is may make attention overflow."""
_CODE_MAX = 127
_FLOATS = {"f32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class PageBlock:
    """`keys` and `values`, each `[layers, kv_heads, tokens, dimension]`; whole pages of tokens."""

    keys: Tensor
    values: Tensor

    def pages(self, start: int, stop: int, page_tokens: int) -> "PageBlock":
        """Some of its pages."""
        tokens = slice(start * page_tokens, stop * page_tokens)
        return PageBlock(self.keys[:, :, tokens], self.values[:, :, tokens])


def encode_block(block: PageBlock, encoding: Encoding) -> bytes:
    """As `protocols.messages.memory.Pages` describes it."""
    parts = (block.keys, block.values)
    if encoding != "i8":
        return b"".join(_bytes(part.to(_FLOATS[encoding])) for part in parts)
    codes, scales = zip(*map(_quantise, parts), strict=True)
    return b"".join(_bytes(one) for one in (*codes, *scales))


def decode_block(data: bytes, shape: tuple[int, int, int, int], encoding: Encoding) -> PageBlock:
    """What `encode_block` made of tensors of `shape`; `i8` comes back in fp32.

    `ProtocolError` if the size is wrong, or a number is not finite or larger than any that a sound
    model has: such numbers must not come near a cache.
    """
    count, vectors = math.prod(shape), math.prod(shape[:-1])
    item = 1 if encoding == "i8" else _FLOATS[encoding].itemsize
    scales = 2 * vectors * 2 if encoding == "i8" else 0
    if len(data) != 2 * count * item + scales:
        raise ProtocolError(f"{len(data)} bytes for keys and values of {shape}")
    # A copy: the bytes of a frame may not be written, and torch wants memory that may.
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    halves = raw[: count * item], raw[count * item : 2 * count * item]
    if encoding != "i8":
        keys, values = (half.view(_FLOATS[encoding]).view(shape) for half in halves)
    else:
        factors = raw[2 * count :].view(torch.float16).view(2, *shape[:-1], 1).float()
        _check_range(factors * _CODE_MAX, least=0.0)
        keys, values = (
            half.view(torch.int8).view(shape) * factor
            for half, factor in zip(halves, factors, strict=True)
        )
    for part in (keys, values):
        _check_range(part)
    return PageBlock(keys, values)


def _quantise(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and f16 scales `[..., 1]`. Codes are made with the scale as it will be read."""
    wide = vectors.float()
    scales = (wide.abs().amax(-1, keepdim=True) / _CODE_MAX).half()
    # A vector so small that its scale is no number in f16 counts as zeros.
    factors = torch.where(scales > 0, scales.float(), torch.inf)
    codes = (wide / factors).round_().clamp_(-_CODE_MAX, _CODE_MAX)
    return codes.to(torch.int8), scales


def _check_range(numbers: Tensor, least: float = -MAGNITUDE_MAX) -> None:
    """NaN is in no range."""
    if not numbers.numel():
        return
    low, high = numbers.aminmax()
    if not (low >= least and high <= MAGNITUDE_MAX):
        raise ProtocolError("keys or values that are no numbers of a sound model")


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
