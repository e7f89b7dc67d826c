"""Adapters that are laid out alike, stacked: slot s of each tensor belongs to the same adapter.

Knows slots and memory; must not know names of adapters, batches or who uses what. A's are stacked
apart from B's and each content once, so that adapters that share a frozen A hold it together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from node.engine.adapters.layout import Place, ProductLayout, ProductPair, digest_of_a
from node.engine.batch import CPU


@dataclass(slots=True, eq=False)
class StackedProduct:
    """`a` [slots, rank, in], and of each piece of `layout` B, turned: `[slots, rank, columns]`.

    Contiguous, in the type that the model computes in, B with its scale. The tensors are replaced
    when the stack grows, never resized: who reads old ones finds the slots that there were. B is
    turned because batched products of few rows are up to twice as quick so.
    """

    layout: ProductLayout
    a: Tensor
    bs: list[Tensor]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one adapter lies: which A, and which B."""

    a: int
    b: int


@dataclass(slots=True)
class _Slots:
    """Which numbers are taken; the lowest free one is next."""

    taken: set[int] = field(default_factory=set)

    def take(self) -> int:
        slot = next(number for number in range(len(self.taken) + 1) if number not in self.taken)
        self.taken.add(slot)
        return slot

    @property
    def wanted(self) -> int:
        """How many slots there must be for those that are taken."""
        return max(self.taken, default=-1) + 1


class Shelf:
    """All adapters of one layout. `put` and `take_off` are not for two threads at a time.

    Reading `products` meanwhile is safe for slots that are not being put or taken off.
    """

    def __init__(
        self,
        number: int,
        layouts: Sequence[ProductLayout],
        dtype: torch.dtype,
        device: torch.device = CPU,
    ) -> None:
        """Empty, for weights of `dtype` on `device`. `number` tells shelves apart."""
        self.number = number
        self.device = device
        self.version = 0
        """Changes with every adapter that comes or goes."""
        self._a_slots: dict[bytes, int] = {}
        self._a_of: dict[int, bytes] = {}
        self._free_a = _Slots()
        self._free_b = _Slots()
        self.products: dict[Place, StackedProduct] = {}
        for layout in layouts:
            a = torch.empty((0, layout.rank, layout.into), dtype=dtype, device=device)
            bs = [
                torch.empty(
                    (0, piece.rank_stop - piece.rank_start, piece.stop - piece.start),
                    dtype=dtype,
                    device=device,
                )
                for piece in layout.pieces
            ]
            self.products[layout.place] = StackedProduct(layout, a, bs)

    def __repr__(self) -> str:
        return f"<Shelf adapters={len(self._free_b.taken)} a={len(self._free_a.taken)}>"

    @property
    def is_empty(self) -> bool:
        """Whether no adapter lies here."""
        return not self._free_b.taken

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(one.a.nbytes + sum(b.nbytes for b in one.bs) for one in self.products.values())

    def put(self, pairs: list[ProductPair]) -> Slot:
        """Copy an adapter in. Its A is copied only if no adapter here has the same."""
        content = digest_of_a(pairs)
        known = self._a_slots.get(content)
        a_slot = self._free_a.take() if known is None else known
        b_slot = self._free_b.take()
        for pair in pairs:
            product = self.products[pair.layout.place]
            if known is None:
                product.a = _with(product.a, a_slot, pair.a)
            product.bs = [
                _with(stack, b_slot, b.t()) for stack, b in zip(product.bs, pair.bs, strict=True)
            ]
        self.version += 1
        self._a_slots[content] = a_slot
        self._a_of[b_slot] = content
        return Slot(a_slot, b_slot)

    def take_off(self, slot: Slot) -> None:
        """Forget an adapter; slots after the last that is left are given back."""
        self.version += 1
        content = self._a_of.pop(slot.b)
        self._free_b.taken.remove(slot.b)
        if content not in self._a_of.values():
            self._free_a.taken.remove(self._a_slots.pop(content))
        for product in self.products.values():
            product.a = _cut(product.a, self._free_a.wanted)
            product.bs = [_cut(stack, self._free_b.wanted) for stack in product.bs]


def _with(stack: Tensor, slot: int, content: Tensor) -> Tensor:
    """`stack` [slots, ...] with `content` in `slot`, a new and longer one if there is no such."""
    if slot >= len(stack):
        grown = stack.new_empty((slot + 1, *stack.shape[1:]))
        grown[: len(stack)] = stack
        stack = grown
    stack[slot] = content
    return stack


def _cut(stack: Tensor, slots: int) -> Tensor:
    return stack if slots == len(stack) else stack[:slots].clone()
