"""hivemind's own lookup, with every peer's answer judged by itself before any is merged.

Knows hivemind's `DHTNode`; must not know what is looked for. hivemind merges what it finds by
lifetime alone, so that one peer's made-up value, said to live longest, would hide the true one.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID

from protocols.adapters.libp2p.table import Kept
from protocols.adapters.libp2p.verdict import Judge, Verdict


class Answers:
    """What peers say lies at some places: for every subkey the best value of all of them."""

    def __init__(self, judge: Judge, places: Collection[DHTID]) -> None:
        self._judge = judge
        self.places = frozenset(places)
        self.best: dict[str, Kept] = {}

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


class SearchNode(DHTNode):  # type: ignore[misc]  # hivemind is untyped
    """A DHT node that shows all answers to its lookups to those who listen."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._listening: list[Answers] = []

    @contextmanager
    def listen(self, answers: Answers) -> Iterator[None]:
        """Add to `answers` whatever peers answer about its places meanwhile."""
        self._listening.append(answers)
        try:
            yield
        finally:
            self._listening.remove(answers)

    async def _call_find_with_blacklist(self, peer_id: PeerID, keys: Collection[DHTID]) -> Any:
        response = await super()._call_find_with_blacklist(peer_id, keys)
        for place, (found, _) in (response or {}).items():
            listeners = [answers for answers in self._listening if place in answers.places]
            if found is None or not listeners:
                continue
            entries = [
                (name, item.value, item.expiration_time) for name, item in found.value.items()
            ]
            for answers in listeners:
                answers.add(place, entries)
        return response
