"""Who may make certificates: the owner's latest word about each issuer.

Knows which of two delegations counts and which to keep when there are too many; must not know the
revocations. The same delegations in any order leave the same ones kept.
"""

from collections.abc import Iterator

from protocols import limits
from protocols.ids import PeerId
from protocols.membership.charter import Charter
from protocols.membership.documents import Delegation, open_delegation


class Delegations:
    """One delegation per issuer: the last that the owner signed for it, be it a shorter one."""

    def __init__(self, charter: Charter) -> None:
        self._charter = charter
        self._kept: dict[PeerId, tuple[bytes, Delegation]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Delegation]:
        return (delegation for _, delegation in self._kept.values())

    def documents(self) -> tuple[bytes, ...]:
        """All that are kept, as the owner signed them."""
        return tuple(data for data, _ in self._kept.values())

    def of(self, issuer: PeerId) -> tuple[bytes, Delegation] | None:
        """What is kept of `issuer`."""
        return self._kept.get(issuer)

    def later(self, data: bytes) -> tuple[bytes, Delegation]:
        """`data` or, if the owner said something else since, what is kept of the same issuer.

        Nothing is kept. `RecordError` if `data` is not genuine.
        """
        known = self._known(data)
        if known is not None:
            return known
        offered = data, open_delegation(data, self._charter)
        kept = self._kept.get(PeerId(offered[1].issuer))
        return offered if kept is None or _rank(offered) > _rank(kept) else kept

    def offer(self, data: bytes, now: float) -> bool:
        """Keep `data` if it is the latest word about its issuer; whether it was news.

        Those that ended or begin in the future are not taken. Of too many issuers the ones with
        the oldest delegations are let go. `RecordError` if `data` is not genuine.
        """
        if self._known(data) is not None:
            return False
        delegation = open_delegation(data, self._charter)
        issuer = PeerId(delegation.issuer)
        kept = self._kept.get(issuer)
        if kept is not None and _rank(kept) >= _rank((data, delegation)):
            return False
        if not is_alive(delegation, now):
            return False
        self._kept[issuer] = data, delegation
        if len(self._kept) <= limits.DELEGATIONS_MAX:
            return True
        return self._let_go(now) != issuer

    def _known(self, data: bytes) -> tuple[bytes, Delegation] | None:
        """`data` as it was kept before, which spares verifying it again."""
        return next((one for one in self._kept.values() if one[0] == data), None)

    def _let_go(self, now: float) -> PeerId:
        """Drop the least of all: one that ended, else the oldest."""

        def worth(issuer: PeerId) -> tuple[bool, tuple[float, float, bytes]]:
            kept = self._kept[issuer]
            return is_alive(kept[1], now), _rank(kept)

        least = min(self._kept, key=worth)
        del self._kept[least]
        return least


def is_alive(delegation: Delegation, now: float) -> bool:
    """Whether `now` lies in the delegation's time, give or take a clock that is a little off."""
    return delegation.issued_at - limits.CLOCK_SKEW_SECONDS_MAX <= now < delegation.expires_at


def _rank(one: tuple[bytes, Delegation]) -> tuple[float, float, bytes]:
    """Later words count more; a total order, so that everybody picks the same."""
    data, delegation = one
    return delegation.issued_at, delegation.expires_at, data
