"""Addresses of peers that answered us, for the day on which every bootstrap peer is gone.

Knows which are worth keeping: many peers on many networks, the newest first; must not know how
anybody is dialled.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

from node.swarms.folder import REMEMBERED_MAX, SwarmFolder
from node.swarms.scopes import Scope, endpoint_of, scope_of
from protocols import limits
from protocols.errors import ProtocolError
from protocols.ids import PeerId, parse_peer_id

ADDRESSES_PER_PEER = 2
SAVE_SECONDS = 10.0


class Remembered:
    """At most `most` addresses, each ending in `/p2p/<peer>`. Pure."""

    def __init__(self, addresses: Iterable[str] = (), most: int = REMEMBERED_MAX) -> None:
        """`addresses` as `addresses()` gave them, newest first; what is none is left out."""
        self._most = most
        self._peers: dict[PeerId, tuple[str, ...]] = {}
        """From the one heard of longest ago to the newest."""
        for address in reversed(tuple(addresses)):
            peer = peer_in(address)
            if peer is not None:
                self._note(peer, (address, *self._peers.get(peer, ())))
        self._shrink()

    def __repr__(self) -> str:
        return f"<Remembered {len(self._peers)} peers>"

    def note(self, peer: PeerId, addresses: Iterable[str]) -> bool:
        """`peer` answered us, and says that it is at `addresses`; whether anything changed.

        Addresses without its peer id at their end are left out.
        """
        before = self.addresses()
        good = [one for one in addresses if peer_in(one) == peer]
        good.sort(key=lambda one: -scope_of(one))
        if good:
            self._note(peer, (*good, *self._peers.get(peer, ())))
            self._shrink()
        return self.addresses() != before

    def forget(self, peer: PeerId) -> bool:
        """`peer` was revoked, say; whether it was remembered."""
        return self._peers.pop(peer, None) is not None

    def addresses(self) -> tuple[str, ...]:
        """First the best address of each peer, the newest peer first; then the second best."""
        newest_first = tuple(reversed(self._peers.values()))
        rounds = range(ADDRESSES_PER_PEER)
        ordered = [kept[rank] for rank in rounds for kept in newest_first if rank < len(kept)]
        return tuple(ordered[: self._most])

    def _note(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        self._peers.pop(peer, None)
        self._peers[peer] = tuple(dict.fromkeys(addresses))[:ADDRESSES_PER_PEER]

    def _shrink(self) -> None:
        """Too many peers: the oldest of the most crowded network goes, so that whoever owns one
        network cannot push out all others."""
        while len(self._peers) > self._most:
            crowds = Counter(_network(kept[0]) for kept in self._peers.values())
            biggest = max(crowds.values())
            del self._peers[
                next(
                    peer
                    for peer, kept in self._peers.items()
                    if crowds[_network(kept[0])] == biggest
                )
            ]


class PeerMemory:
    """`Remembered`, kept in a swarm's folder."""

    def __init__(self, folder: SwarmFolder) -> None:
        """`ConfigError` if what was saved is damaged."""
        self._folder = folder
        self._remembered = Remembered(folder.remembered())
        self._is_changed = False

    def addresses(self) -> tuple[str, ...]:
        """Whom to dial at the start, best first."""
        return self._remembered.addresses()

    def note(self, peer: PeerId, addresses: Iterable[str]) -> None:
        """`peer` answered us."""
        self._is_changed |= self._remembered.note(peer, addresses)

    def forget(self, peer: PeerId) -> None:
        """Do not go back to `peer`."""
        self._is_changed |= self._remembered.forget(peer)

    def save(self) -> bool:
        """Write it down if there is news; whether there was. `ConfigError` as of the folder."""
        if not self._is_changed:
            return False
        self._folder.save_remembered(self._remembered.addresses())
        self._is_changed = False
        return True

    async def run(self) -> None:
        """Save now and then, for as long as the node lives; call `save` once more at its end."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            self.save()


def peer_in(address: str) -> PeerId | None:
    """The peer at the end of an address; None if it cannot be dialled or names no peer."""
    if len(address) > limits.ADDRESS_BYTES_MAX or scope_of(address) is Scope.NONE:
        return None
    try:
        return parse_peer_id(address.rpartition("/p2p/")[2])
    except ProtocolError:
        return None


def _network(address: str) -> str:
    """The /16 (IPv6: /32) of an address; a name or relay is a network of its own."""
    endpoint = endpoint_of(address)
    if endpoint is None:
        return address
    return (
        f"{endpoint.ip.version} {endpoint.ip.packed[: 2 if endpoint.ip.version == 4 else 4].hex()}"
    )
