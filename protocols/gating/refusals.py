"""What went wrong with whom, remembered for a short, growing time, so that it costs nothing.

Knows peers, errors and a time line given to it; must not know what was tried.
"""

from collections import OrderedDict
from dataclasses import dataclass

from protocols.errors import DslmError, NetworkError, NotAdmitted, PeerUnreachable
from protocols.ids import PeerId

SECONDS_FIRST = 1.0
SECONDS_MAX = 60.0
PEERS_MAX = 2_048
_TEXT_MAX = 300
FORGIVEN_SECONDS = 120.0
"""After this long without a failure the next one counts as the first."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    is_network: bool
    text: str
    until: float
    seconds: float


class Refusals:
    """The last failure with each of up to 2,048 peers; times are monotonic seconds."""

    def __init__(self, peers_max: int = PEERS_MAX) -> None:
        self._peers_max = peers_max
        self._kept: OrderedDict[PeerId, _Refusal] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def standing(self, peer: PeerId, now: float) -> DslmError | None:
        """The failure because of which `peer` is not to be tried now, if there is one."""
        kept = self._kept.get(peer)
        if kept is None or now >= kept.until:
            return None
        return PeerUnreachable(kept.text) if kept.is_network else NotAdmitted(kept.text)

    def add(self, peer: PeerId, error: DslmError, now: float, seconds_max: float) -> None:
        """Note a failure. The ban doubles from 1 s to `seconds_max` while failures go on."""
        before = self._kept.pop(peer, None)
        is_new = before is None or now > before.until + FORGIVEN_SECONDS
        seconds = SECONDS_FIRST if is_new or before is None else 2 * before.seconds
        seconds = min(seconds, seconds_max)
        is_network = isinstance(error, NetworkError)
        self._kept[peer] = _Refusal(is_network, str(error)[:_TEXT_MAX], now + seconds, seconds)
        if len(self._kept) > self._peers_max:
            self._kept.popitem(last=False)

    def clear(self, peer: PeerId) -> None:
        """`peer` may be tried at once."""
        self._kept.pop(peer, None)

    def clear_all(self) -> None:
        """Everybody may be tried at once."""
        self._kept.clear()
