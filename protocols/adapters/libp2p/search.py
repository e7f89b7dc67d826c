"""hivemind's own lookup, with every peer's answer judged by itself before any is merged.

Knows hivemind's `DHTNode`; must not know what is looked for. hivemind merges what it finds by
lifetime alone, so that one peer's made-up value, said to live longest, would hide the true one;
and it waits for all whom it asked, so that peers that do not answer hold it up.
"""

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import PeerID
from hivemind.utils.timed_storage import ValueWithExpiration

from protocols.adapters.libp2p.responses import Responses
from protocols.adapters.libp2p.table import Kept
from protocols.adapters.libp2p.verdict import Judge, Verdict
from protocols.ports import Clock

Around = Mapping[DHTID, Sequence[PeerID]]
"""Places, and the peers nearest to each."""
_Found = tuple["ValueWithExpiration[DictionaryDHTValue] | None", Mapping[DHTID, PeerID]]
"""What a peer has at a place, if anything, and which peers it knows nearest to it."""
Entry = tuple[str, bytes, float]
"""Subkey, stored value, end."""
_Response = Mapping[DHTID, _Found] | None
PROBES_MAX = 16
"""Peers that are tried at a time because they called us."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A search may end with a genuine value of this publisher that lives beyond this time."""

    publisher: str
    lives_beyond: float


class Search:
    """One search: for every subkey the best value of all that peers answered."""

    def __init__(self, judge: Judge, wanted: Wanted | None = None) -> None:
        self._judge = judge
        self._wanted = wanted
        self._calls: set[asyncio.Timeout] = set()
        self._late: set[asyncio.Task[_Response]] = set()
        self.best: dict[str, Kept] = {}
        self.is_over = False
        self.is_cut_short = False

    @property
    def is_enough(self) -> bool:
        """Whether what was wanted is there."""
        found = self.best.get(self._wanted.publisher) if self._wanted else None
        if self._wanted is None or found is None:
            return False
        return found.is_genuine and found.expires_at > self._wanted.lives_beyond

    def resumed(self) -> "Search":
        """A search for the same that has found what this one has."""
        search = Search(self._judge, self._wanted)
        search.best.update(self.best)
        return search

    def add(self, place: DHTID, answer: Sequence[tuple[str, bytes, float]]) -> None:
        """One peer's (subkey, stored value, end) at a place.

        What follows a forgery in the same answer is not looked at: honest peers keep none, and a
        lie should not cost us more than one signature.
        """
        for subkey, value, expires_at in answer:
            present = self.best.get(subkey)
            if present and (present.value, present.expires_at) == (value, expires_at):
                continue
            verdict = self._judge.judge(place, subkey, value, expires_at)
            if verdict is Verdict.FORGED:
                return
            self.offer(subkey, Kept(verdict is Verdict.GENUINE, expires_at, value))

    def offer(self, subkey: str, kept: Kept) -> None:
        """A value that was judged already."""
        present = self.best.get(subkey)
        if present is None or kept.rank() > present.rank():
            self.best[subkey] = kept
            if self.is_enough:
                self.stop()

    def stop(self) -> None:
        """Ask nobody else, and wait for nobody."""
        self.is_over = True
        now = asyncio.get_running_loop().time()
        for call in self._calls:
            call.reschedule(now)

    def cut_short(self) -> None:
        """Stop, because time is up."""
        self.is_cut_short = True
        self.stop()

    async def wait_for(self, call: "asyncio.Task[_Response]", patience: float) -> _Response:
        """What a call brought; None when it takes too long, while it goes on, or we stop."""
        try:
            async with asyncio.timeout(patience) as limit:
                self._calls.add(limit)
                try:
                    return await asyncio.shield(call)
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if not call.cancelled() or (task and task.cancelling()):
                        raise
                    return None  # the node was closed
                finally:
                    self._calls.discard(limit)
        except TimeoutError:
            self._late.add(call)
            return None

    async def wait_for_late(self) -> None:
        """Until a call that took too long brought something, or none is left that may."""
        while not (self.is_over or self.best):
            self._late = {call for call in self._late if not call.done()}
            if not self._late:
                return
            await asyncio.wait(self._late, return_when=asyncio.FIRST_COMPLETED)


_search: ContextVar[Search | None] = ContextVar("search", default=None)
"""The search that a call belongs to; hivemind's lookup starts tasks, which inherit it."""


class SearchNode(DHTNode):  # type: ignore[misc]  # hivemind is untyped
    """A DHT node whose lookups can be watched and ended, and that believes who answers it.

    `prepare` it before use. Calls that are not waited for any more end by hivemind's time limit.
    """

    def prepare(self, clock: Clock) -> None:
        """Take over from hivemind whom to know and whom to avoid."""
        self._clock = clock
        self._calls: set[asyncio.Task[Any]] = set()
        self._probed: set[PeerID] = set()
        self.blacklist = self.responses = Responses(clock)
        self._believe = self.protocol.update_routing_table
        self.protocol.update_routing_table = self._hear_of

    async def close(self) -> None:
        """End all calls."""
        self.is_alive = False
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)

    async def look(
        self, search: Search, places: Sequence[DHTID], beam: int, workers: int
    ) -> Around:
        """Ask around all `places` at once; the `beam` nearest peers found at each, without us."""
        token = _search.set(search)
        try:
            found = await self.find_nearest_nodes(
                places, k_nearest=beam, beam_size=beam, num_workers=workers, exclude_self=True
            )
        finally:
            _search.reset(token)
        return {place: tuple(peers.values()) for place, peers in found.items()}

    async def ping(self, peer: PeerID) -> bool:
        """Say that we are there; whether it answered."""
        began = self._clock.monotonic()
        return self._note(peer, began, await self.protocol.call_ping(peer) is not None)

    async def store_with(self, place: DHTID, entry: Entry, peer: PeerID) -> bool:
        """Ask a peer to keep a (subkey, stored value, end); whether it does."""
        subkey, stored, expires_at = entry
        began = self._clock.monotonic()
        taken = await self.protocol.call_store(
            peer, [place], [stored], expires_at, subkeys=[subkey]
        )
        self._note(peer, began, taken is not None)
        return bool(taken and taken[0])

    def start(self, call: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        """Make a call that may be left alone; `close` ends it."""
        # no task group could own it: it outlives whoever started it, but not this node
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def _call_find_with_blacklist(
        self, peer_id: PeerID, keys: Collection[DHTID]
    ) -> _Response:
        search = _search.get()
        if search is None:
            return await self._ask(peer_id, keys)
        if search.is_over or peer_id in self.responses:
            return None
        call = self.start(self._ask_for(search, peer_id, keys))
        return await search.wait_for(call, self.responses.patience(peer_id))

    async def _ask_for(self, search: Search, peer: PeerID, keys: Collection[DHTID]) -> _Response:
        response = await self._ask(peer, keys)
        if search.is_over:
            return None
        for place, (found, _) in (response or {}).items():
            if found is not None:
                items = found.value.items()
                search.add(
                    place, [(name, item.value, item.expiration_time) for name, item in items]
                )
        return response

    async def _ask(self, peer: PeerID, keys: Collection[DHTID]) -> _Response:
        began = self._clock.monotonic()
        response = await self.protocol.call_find(peer, keys)
        self._note(peer, began, response is not None)
        if response is None:
            return None
        return {
            key: (found, self._filter_blacklisted(nearest))
            for key, (found, nearest) in response.items()
        }

    def _note(self, peer: PeerID, began: float, has_answered: bool) -> bool:
        seconds = self._clock.monotonic() - began
        if has_answered:
            self.responses.succeed(peer, seconds)
        elif self.p2p.is_attached:
            self.responses.fail(peer, seconds)
        return has_answered

    async def _hear_of(
        self, node_id: DHTID | None, peer_id: PeerID, responded: bool = True
    ) -> None:
        """In place of hivemind's own, which believes everybody who says that he is there."""
        if not responded or self.responses.has_answered(peer_id):
            await self._believe(node_id, peer_id, responded)
        elif (
            peer_id not in self._probed
            and len(self._probed) < PROBES_MAX
            and self.responses.may_probe(peer_id)
        ):
            self._probed.add(peer_id)
            self.start(self._probe(peer_id))

    async def _probe(self, peer: PeerID) -> None:
        """Ask one a real question; if it answers hivemind will tell us of it again."""
        try:
            await self._ask(peer, [self.node_id])
        finally:
            self._probed.discard(peer)
