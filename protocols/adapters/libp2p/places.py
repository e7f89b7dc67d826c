"""Where in the DHT a key's records lie: several places each, and a secret choice of holders there.

Knows names, hashes and how many; must not know the network. A peer that makes up identities until
some lie next to a key has to do so at every place of it, and does not learn beforehand which of
the peers there will be asked to keep a record.
"""

import hashlib
import random
from collections.abc import Sequence

from hivemind.dht.routing import DHTID

PLACES = 4
"""Places of one key in a swarm too large to ask everybody."""
BEAM = 20
"""Peers asked around each place, by those who store and those who look."""
COPIES = 12
"""Holders of one record, over all its places."""
SECRET_SECONDS = 600.0
"""For so long the same holders are chosen, so that copies do not spread with every renewal."""


def place_of(key: str, number: int) -> DHTID:
    """The id of one of `key`'s places; number 0 is where hivemind alone would look."""
    return DHTID.generate(source=key if number == 0 else f"{key}#{number}")


def places_of(key: str, neighbours: int) -> tuple[DHTID, ...]:
    """The places to use by one who knows so many `neighbours`.

    Where everybody is asked anyway one place is enough; it is among the places of all others, so
    those who know few and those who know many find each other's records.
    """
    count = 1 if neighbours < BEAM else PLACES
    return tuple(place_of(key, number) for number in range(count))


class Choice:
    """Picks holders among the peers at a place, by a secret that is drawn anew now and then.

    The nearest peers are no better than the others: an attacker can be nearer than anybody, but
    has to outnumber the honest peers around a place to be all that is picked.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._secret = rng.randbytes(32)
        self._changes_at = float("-inf")

    def order(self, place: DHTID, peers: Sequence[bytes], now: float) -> list[int]:
        """Indexes into `peers`, the first to be chosen first; `now` is monotonic, in seconds."""
        if now >= self._changes_at:
            self._secret = self._rng.randbytes(32)
            self._changes_at = now + SECRET_SECONDS

        def rank(index: int) -> bytes:
            text = place.to_bytes() + peers[index]
            return hashlib.blake2b(text, key=self._secret, digest_size=16).digest()

        return sorted(range(len(peers)), key=rank)
