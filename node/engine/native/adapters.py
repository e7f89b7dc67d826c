"""The adapters of a batch as the compiled step reads them.

Knows shelves, plans and the structures of `library`; must not know requests. What lies in a shelf
is told by address, so it is held here for as long as the step may read it.
"""

import ctypes
from array import array
from weakref import WeakKeyDictionary

from torch import Tensor

from node.engine.adapters.plan import AdapterPlan, ShelfPlan
from node.engine.adapters.shelf import Shelf, StackedProduct
from node.engine.adapters.weights import PRODUCTS
from node.engine.native.library import (
    AdaptedProductStruct,
    GroupStruct,
    PieceStruct,
    ShelfStruct,
)

_ORDER = {name: number for number, name in enumerate(PRODUCTS)}


class _Table:
    """The addresses of all that lies in a shelf, at one version of it."""

    def __init__(self, shelf: Shelf, layers: int) -> None:
        self.version = shelf.version
        self.rank_most = 0
        self.structs = (AdaptedProductStruct * (layers * len(_ORDER)))()
        self._held: list[Tensor] = []
        for (layer, name), product in shelf.products.items():
            self.rank_most = max(self.rank_most, product.layout.rank)
            self.structs[layer * len(_ORDER) + _ORDER[name]] = self._struct(product)

    def _struct(self, product: StackedProduct) -> AdaptedProductStruct:
        layout, a, bs = product.layout, product.a, list(product.bs)
        self._held += [a, *bs]
        pieces = [
            PieceStruct(b.data_ptr(), one.start, one.stop, one.rank_start, one.rank_stop)
            for one, b in zip(layout.pieces, bs, strict=True)
        ]
        return AdaptedProductStruct(
            a=a.data_ptr(),
            rank=layout.rank,
            into=layout.into,
            piece_count=len(pieces),
            pieces=(PieceStruct * 3)(*pieces),
        )


class AdapterTables:
    """Makes the structures of a batch; those of a shelf are kept until it changes."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._tables: WeakKeyDictionary[Shelf, _Table] = WeakKeyDictionary()

    def of(self, plan: AdapterPlan) -> "BatchAdapters":
        """For one batch."""
        return BatchAdapters([(one, self._table(one.shelf)) for one in plan.plans])

    def _table(self, shelf: Shelf) -> _Table:
        table = self._tables.get(shelf)
        if table is None or table.version != shelf.version:
            table = self._tables[shelf] = _Table(shelf, self._layers)
        return table


class BatchAdapters:
    """What `BatchStruct.shelves` points to; must live as long as the step."""

    def __init__(self, parts: list[tuple[ShelfPlan, _Table]]) -> None:
        self._held: list[object] = []
        self.structs = (ShelfStruct * len(parts))(*(self._shelf(*part) for part in parts))

    def _shelf(self, plan: ShelfPlan, table: _Table) -> ShelfStruct:
        rows = array("i")
        groups: list[GroupStruct] = []
        for member in plan.members:
            slot = member.slot
            groups.append(GroupStruct(slot.a, slot.b, len(rows), len(member.rows)))
            rows.extend(member.rows)
        structs = (GroupStruct * len(groups))(*groups)
        self._held += [rows, structs, table]
        return ShelfStruct(
            products=ctypes.addressof(table.structs),
            groups=ctypes.addressof(structs),
            rows=rows.buffer_info()[0],
            group_count=len(groups),
            rank_most=table.rank_most,
        )
