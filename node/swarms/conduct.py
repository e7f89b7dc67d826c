"""What strangers have earned in a public swarm, kept over restarts: `Standing`, and its file.

Knows the file, and when something counts as one offence; must not know who is connected. In a
private swarm nobody earns anything: there is no file then.
"""

import logging
from collections.abc import Iterable

from coordinator.standing import PEERS_MAX, Standing
from node.swarms.folder import SwarmFolder
from protocols.errors import ConfigError
from protocols.ids import PeerId
from protocols.ports import Allowance, Clock

ONE_FLOOD_SECONDS = 60.0
"""A flood is one offence, however many refusals it is made of."""
_log = logging.getLogger(__name__)


class ConductBook:
    """Standing that a restart does not lose. Read from the folder when made."""

    def __init__(self, folder: SwarmFolder, clock: Clock) -> None:
        """A damaged file is as good as none: nobody has earned anything then."""
        self._folder = folder
        self._clock = clock
        self._is_kept = not folder.charter.is_private
        self._floods: dict[PeerId, float] = {}
        self._saved = b""
        self.standing = self._load()

    def allowance_of(self, peer: PeerId) -> Allowance:
        """See `Standing`."""
        return self.standing.allowance_of(peer)

    def met(self, peers: Iterable[PeerId]) -> None:
        """`peers` are connected now: say so every few seconds."""
        if self._is_kept:
            now = self._clock.now()
            for peer in peers:
                self.standing.met(peer, now)

    def served(self, peer: PeerId, tokens: int) -> None:
        """`peer` made so many tokens for us that we accepted."""
        if self._is_kept:
            self.standing.served(peer, tokens, self._clock.now())

    def flooded(self, peer: PeerId) -> None:
        """`peer` goes on and on although it was refused; called for each of many refusals."""
        now = self._clock.monotonic()
        if not self._is_kept or now - self._floods.get(peer, -ONE_FLOOD_SECONDS) < (
            ONE_FLOOD_SECONDS
        ):
            return
        self._floods.pop(peer, None)
        self._floods[peer] = now
        if len(self._floods) > PEERS_MAX:
            del self._floods[next(iter(self._floods))]
        self.standing.offended(peer, self._clock.now())

    def save(self) -> bool:
        """Write it down if there is news; whether there was. `ConfigError` as of the folder."""
        if not self._is_kept or not len(self.standing):
            return False
        data = self.standing.dump()
        if data == self._saved:
            return False
        self._folder.save_standing(data)
        self._saved = data
        return True

    def _load(self) -> Standing:
        if not self._is_kept:
            return Standing()
        try:
            data = self._folder.standing()
        except ConfigError as error:
            _log.warning("everybody in %s begins as a newcomer: %s", self._folder.name, error)
            return Standing()
        self._saved = data
        return Standing.load(data) if data else Standing()
