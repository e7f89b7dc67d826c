"""The adapters that a model has in memory: loaded and unloaded at any time, counted while used.

Knows names, counts and shelves; must not know files or the scheduler.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from node.engine.adapters.layout import ProductLayout, lay_out
from node.engine.adapters.plan import AdapterPlan, Member, plan_shelf
from node.engine.adapters.shelf import Shelf, Slot
from node.engine.adapters.weights import Adapter, complaints
from node.engine.batch import CPU
from node.engine.config import LlamaConfig
from node.engine.errors import UnknownAdapter

BASE = -1
"""Stands for no adapter in a batch's column of handles."""


@dataclass(slots=True, eq=False)
class _Loaded:
    """One adapter in memory. It goes when it `is_leaving` and nobody uses it."""

    digest: str
    shelf: Shelf
    slot: Slot
    users: int = 0
    is_leaving: bool = False


class AdapterSet:
    """All adapters on one model.

    `load` and `unload` may be called by any thread at any time, also while a batch is computed;
    `acquire`, `release` and `plan` by the one that computes.
    """

    def __init__(self, config: LlamaConfig, dtype: torch.dtype, device: torch.device = CPU) -> None:
        """For a model of the shape `config` that computes in `dtype` on `device`."""
        self._config = config
        self._dtype = dtype
        self._device = device
        self._lock = threading.Lock()
        self._shelves: dict[tuple[ProductLayout, ...], Shelf] = {}
        self._handles: dict[str, int] = {}
        self._loaded: dict[int, _Loaded] = {}
        self._next = 0

    def __repr__(self) -> str:
        return f"<AdapterSet loaded={len(self._handles)} size={self.size}>"

    @property
    def digests(self) -> frozenset[str]:
        """The adapters that new requests can have."""
        with self._lock:
            return frozenset(self._handles)

    @property
    def size(self) -> int:
        """Bytes held."""
        with self._lock:
            return sum(shelf.size for shelf in self._shelves.values())

    def load(self, adapter: Adapter) -> None:
        """Copy it into memory; harmless if it is there. `ValueError` if it does not fit."""
        for complaint in complaints(adapter, self._config):
            raise ValueError(complaint)
        pairs = lay_out(adapter, self._config)
        layouts = tuple(pair.layout for pair in pairs)
        with self._lock:
            if adapter.digest in self._handles:
                return
            shelf = self._shelves.get(layouts) or Shelf(
                self._next, layouts, self._dtype, self._device
            )
            slot = shelf.put(pairs)
            self._shelves[layouts] = shelf
            self._handles[adapter.digest] = self._next
            self._loaded[self._next] = _Loaded(adapter.digest, shelf, slot)
            self._next += 1

    def unload(self, digest: str) -> None:
        """Let no new request have it. Its memory is free when the last request that does ends.

        Harmless if it is not there.
        """
        with self._lock:
            handle = self._handles.pop(digest, None)
            if handle is not None:
                self._loaded[handle].is_leaving = True
                self._drop_unused(handle)

    def acquire(self, digest: str) -> int:
        """A handle, good until it is released. `UnknownAdapter` if it is not loaded."""
        with self._lock:
            handle = self._handles.get(digest)
            if handle is None:
                raise UnknownAdapter(f"The adapter {digest[:12]} is not loaded here.")
            self._loaded[handle].users += 1
            return handle

    def release(self, handle: int) -> None:
        """Give back what `acquire` gave, once for each time."""
        with self._lock:
            self._loaded[handle].users -= 1
            self._drop_unused(handle)

    def order(self, handle: int) -> tuple[int, int, int]:
        """Batches whose rows come in this order need the least rearranging."""
        if handle == BASE:
            return -1, 0, 0
        one = self._loaded[handle]
        return one.shelf.number, one.slot.a, one.slot.b

    def plan(self, column: Sequence[int]) -> AdapterPlan | None:
        """What to add to a batch whose row i has the adapter `column[i]`; None if none has any."""
        rows: dict[int, list[int]] = {}
        for row, handle in enumerate(column):
            if handle != BASE:
                rows.setdefault(handle, []).append(row)
        members: dict[Shelf, list[Member]] = {}
        for handle, own in rows.items():
            one = self._loaded[handle]
            members.setdefault(one.shelf, []).append(Member(one.slot, own))
        if not members:
            return None
        return AdapterPlan([plan_shelf(shelf, found) for shelf, found in members.items()])

    def _drop_unused(self, handle: int) -> None:
        one = self._loaded[handle]
        if not one.is_leaving or one.users:
            return
        del self._loaded[handle]
        one.shelf.take_off(one.slot)
        if one.shelf.is_empty:
            self._shelves = {
                layout: shelf for layout, shelf in self._shelves.items() if shelf is not one.shelf
            }


class AdapterUses:
    """Which request uses which adapter, from the moment it is taken until it ends."""

    def __init__(self, adapters: AdapterSet) -> None:
        self._adapters = adapters
        self._handles: dict[str, int] = {}

    def begin(self, request_id: str, digest: str) -> None:
        """`UnknownAdapter` if it is not loaded."""
        self._handles[request_id] = self._adapters.acquire(digest)

    def end(self, request_id: str) -> None:
        """Harmless for a request that uses none."""
        handle = self._handles.pop(request_id, None)
        if handle is not None:
            self._adapters.release(handle)

    def handle(self, request_id: str) -> int:
        """Of its adapter, or `BASE`."""
        return self._handles.get(request_id, BASE)

    def order(self, request_id: str) -> tuple[int, int, int]:
        """As `AdapterSet.order`."""
        return self._adapters.order(self.handle(request_id))
