"""Which rows of a batch belong to which adapter, as few grouped products.

Knows rows and slots; must not know adapters' names, requests or how a model uses the result.

Rows become lanes: those of one adapter side by side, adapters in the order of their slots. Where
neighbours have about as many lanes each, padded to equal numbers, one batched product serves all
of them; where they have one and the same A, one plain product does (segmented gather as in
Punica, arXiv 2310.18547, with torch's own kernels).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear

from node.engine.adapters.layout import Place, ProductLayout
from node.engine.adapters.shelf import Shelf, Slot, StackedProduct
from node.engine.adapters.weights import ProductName

_FEW = 16
"""Up to so many lanes each, adapters are multiplied together; more keep a product busy alone."""


class Adaptation(Protocol):
    """What a batch's adapters add to the products of a model."""

    def add(self, layer: int, product: ProductName, rows: Tensor, result: Tensor) -> None:
        """Change `result` [tokens, out] in place, the product of `rows` [tokens, in]."""
        ...


class Unadapted:
    """An `Adaptation` of a batch without adapters."""

    def add(self, layer: int, product: ProductName, rows: Tensor, result: Tensor) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Member:
    """The `rows` of a batch that one adapter changes, and where it lies."""

    slot: Slot
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class Run:
    """`slots` neighbours from `slot` on with `lanes` lanes each, the first of them at `start`."""

    slot: int
    slots: int
    start: int
    lanes: int

    @property
    def stop(self) -> int:
        """The lane after the last."""
        return self.start + self.slots * self.lanes


@dataclass(frozen=True, slots=True, eq=False)
class Lanes:
    """Where lanes come from and go to.

    Rows that follow each other are used in place: `window` then. Else lane i is row `gather[i]`,
    and the lanes `real` (None: all) go back to the rows `back`; the others are padding.
    """

    window: slice | None
    gather: Tensor
    real: Tensor | None
    back: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ShelfPlan:
    """The work of the adapters of one shelf, `members`: with A by `a_runs`, with B by `b_runs`."""

    shelf: Shelf
    members: tuple[Member, ...]
    lanes: Lanes
    a_runs: tuple[Run, ...]
    b_runs: tuple[Run, ...]

    def add(self, product: StackedProduct, rows: Tensor, result: Tensor) -> None:
        """As `Adaptation.add`, for one product."""
        lanes = self.lanes
        if lanes.window is not None:
            reduced = _reduce(rows[lanes.window], product.a, self.a_runs)
            _expand(reduced, product, self.b_runs, result[lanes.window])
            return
        reduced = _reduce(rows.index_select(0, lanes.gather), product.a, self.a_runs)
        changed = result.index_select(0, lanes.gather)
        _expand(reduced, product, self.b_runs, changed)
        if lanes.real is not None:
            changed = changed.index_select(0, lanes.real)
        result.index_copy_(0, lanes.back, changed)


class AdapterPlan:
    """Implements `Adaptation` for one batch."""

    def __init__(self, plans: Sequence[ShelfPlan]) -> None:
        self.plans = plans

    def add(self, layer: int, product: ProductName, rows: Tensor, result: Tensor) -> None:
        """As `Adaptation`."""
        place: Place = (layer, product)
        for plan in self.plans:
            stacked = plan.shelf.products.get(place)
            if stacked is not None:
                plan.add(stacked, rows, result)


def plan_shelf(shelf: Shelf, members: Iterable[Member]) -> ShelfPlan:
    """The grouping of all `members`, whose adapters all lie on `shelf`."""
    ordered = sorted(members, key=lambda member: (member.slot.a, member.slot.b))
    groups = _grouped(ordered)
    gather: list[int] = []
    real: list[int] = []
    a_runs: list[Run] = []
    b_runs: list[Run] = []
    for group in groups:
        start, most = len(gather), max(len(member.rows) for member in group)
        first = group[0].slot
        for member in group:
            real += range(len(gather), len(gather) + len(member.rows))
            padding = [member.rows[0]] * (most - len(member.rows))
            gather += [*member.rows, *padding]
        b_runs.append(Run(first.b, len(group), start, most))
        if group[-1].slot.a == first.a:
            a_runs.append(Run(first.a, 1, start, len(gather) - start))
        else:
            a_runs.append(Run(first.a, len(group), start, most))
    lanes = _lanes(gather, real, shelf.device)
    return ShelfPlan(shelf, tuple(ordered), lanes, tuple(_merged(a_runs)), tuple(b_runs))


def _grouped(members: Sequence[Member]) -> list[list[Member]]:
    """Neighbours that one batched product can serve without much padding."""
    groups: list[list[Member]] = []
    for member in members:
        if groups and _joins(groups[-1], member):
            groups[-1].append(member)
        else:
            groups.append([member])
    return groups


def _joins(group: Sequence[Member], member: Member) -> bool:
    """In slots of B that follow each other, and of A that do or that are all the same."""
    first, last, slot = group[0].slot, group[-1].slot, member.slot
    if slot.b != last.b + 1:
        return False
    is_same = slot.a == last.a == first.a
    is_next = slot.a == last.a + 1 and slot.a - first.a == len(group)
    counts = [*(len(one.rows) for one in group), len(member.rows)]
    most = max(counts)
    return (is_same or is_next) and most <= _FEW and most * len(counts) <= 2 * sum(counts)


def _merged(runs: Sequence[Run]) -> list[Run]:
    """Runs of one and the same A become one."""
    merged: list[Run] = []
    for run in runs:
        last = merged[-1] if merged else None
        if last is not None and last.slots == run.slots == 1 and last.slot == run.slot:
            merged[-1] = Run(run.slot, 1, last.start, run.stop - last.start)
        else:
            merged.append(run)
    return merged


def _lanes(gather: list[int], real: list[int], device: torch.device) -> Lanes:
    if gather == list(range(gather[0], gather[0] + len(gather))):
        nothing = torch.empty(0, dtype=torch.int64)
        return Lanes(slice(gather[0], gather[-1] + 1), nothing, None, nothing)
    is_padded = len(real) < len(gather)
    return Lanes(
        window=None,
        gather=torch.tensor(gather, device=device),
        real=torch.tensor(real, device=device) if is_padded else None,
        back=torch.tensor([gather[lane] for lane in real], device=device),
    )


def _reduce(rows: Tensor, a: Tensor, runs: Sequence[Run]) -> Tensor:
    """`[lanes, rank]`: each lane of `rows` [lanes, in] times its adapter's A."""
    parts = [_reduce_run(rows[run.start : run.stop], a, run) for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _reduce_run(rows: Tensor, a: Tensor, run: Run) -> Tensor:
    if run.slots == 1:
        return linear(rows, a[run.slot])
    stacked = a[run.slot : run.slot + run.slots]
    return torch.bmm(rows.view(run.slots, run.lanes, -1), stacked.transpose(1, 2)).flatten(0, 1)


def _expand(reduced: Tensor, product: StackedProduct, runs: Sequence[Run], result: Tensor) -> None:
    """Add each lane of `reduced` [lanes, rank] times its adapter's B to `result` [lanes, out]."""
    for run in runs:
        lanes = slice(run.start, run.stop)
        _expand_run(reduced[lanes], product.layout, product.bs, (run, result[lanes]))


def _expand_run(
    reduced: Tensor, layout: ProductLayout, bs: Sequence[Tensor], target: tuple[Run, Tensor]
) -> None:
    run, result = target
    for piece, b in zip(layout.pieces, bs, strict=True):
        inner = reduced[:, piece.rank_start : piece.rank_stop]
        outer = result[:, piece.start : piece.stop]
        if run.slots == 1:
            outer.addmm_(inner, b[run.slot])
        else:
            shape = (run.slots, run.lanes)
            stacked = b[run.slot : run.slot + run.slots]
            outer.view(*shape, -1).baddbmm_(inner.reshape(*shape, -1), stacked)
