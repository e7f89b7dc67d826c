"""hivemind's own lookup, with every peer's answer judged by itself before any is merged.

Knows hivemind's `DHTNode`; must not know what is looked for. hivemind merges what it finds by
lifetime alone, so that one peer's made-up value, said to live longest, would hide the true one;
and it waits for all whom it asked, so that peers that do not answer hold it up.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import PeerID
from hivemind.utils.timed_storage import ValueWithExpiration

from protocols.adapters.libp2p.table import Kept
from protocols.adapters.libp2p.verdict import Judge, Verdict

Around = Mapping[DHTID, Sequence[PeerID]]
"""Places, and the peers nearest to each."""
_Found = tuple["ValueWithExpiration[DictionaryDHTValue] | None", Mapping[DHTID, PeerID]]
"""What a peer has at a place, if anything, and which peers it knows nearest to it."""


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

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """`TimeoutError` within when the search stops."""
        async with asyncio.timeout(None) as call:
            self._calls.add(call)
            try:
                yield
            finally:
                self._calls.discard(call)


_search: ContextVar[Search | None] = ContextVar("search", default=None)
"""The search that a call belongs to; hivemind's lookup starts tasks, which inherit it."""


class SearchNode(DHTNode):  # type: ignore[misc]  # hivemind is untyped
    """A DHT node whose lookups can be watched and ended."""

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

    async def _call_find_with_blacklist(
        self, peer_id: PeerID, keys: Collection[DHTID]
    ) -> Mapping[DHTID, _Found] | None:
        search = _search.get()
        if search is None:
            return await self._ask(peer_id, keys)
        if search.is_over:
            return None
        try:
            async with search.interruptible():
                response = await self._ask(peer_id, keys)
        except TimeoutError:
            return None
        for place, (found, _) in (response or {}).items():
            if found is not None:
                items = found.value.items()
                search.add(
                    place, [(name, item.value, item.expiration_time) for name, item in items]
                )
        return response

    async def _ask(self, peer_id: PeerID, keys: Collection[DHTID]) -> Mapping[DHTID, _Found] | None:
        response: Mapping[DHTID, _Found] | None = await super()._call_find_with_blacklist(
            peer_id, keys
        )
        return response
