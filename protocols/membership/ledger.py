"""An issuer's ledger of invites: which it gave out, how often each was used and by whom.

Knows uses and bounds, and is pure; must not know files: the caller keeps the bytes of `dump`, on
disk before it answers anybody.
"""

from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from protocols import limits
from protocols.codec import decode_header
from protocols.errors import NotAdmitted
from protocols.ids import PeerId
from protocols.membership.documents import Roles, UnixSeconds
from protocols.sealing import PeerText

INVITES_MAX = 1_024


class Issued(Struct, frozen=True):
    """One invite. `used_by` holds whoever enrolled with it; each may again, at no further use."""

    invite: PeerText
    roles: Roles
    uses: Annotated[int, Meta(ge=1, le=limits.INVITE_USES_MAX)]
    issued_at: UnixSeconds
    expires_at: UnixSeconds
    used_by: Annotated[tuple[PeerText, ...], Meta(max_length=limits.INVITE_USES_MAX)] = ()

    @property
    def left(self) -> int:
        """Uses that are left."""
        return self.uses - len(self.used_by)


@dataclass(slots=True)
class Ledger:
    """All invites of one issuer in one swarm."""

    issued: dict[PeerId, Issued] = field(default_factory=dict)

    def add(self, invite: Issued, now: float) -> None:
        """Enter a new invite; those that expired a day ago are dropped when it gets crowded."""
        if PeerId(invite.invite) in self.issued:
            raise NotAdmitted("this invite was made before: make another")
        if len(self.issued) >= INVITES_MAX:
            for key, one in tuple(self.issued.items()):
                if one.expires_at < now - 86_400:
                    del self.issued[key]
        if len(self.issued) >= INVITES_MAX:
            raise NotAdmitted("too many invites are open: let some expire first")
        self.issued[PeerId(invite.invite)] = invite

    def redeem(self, invite: PeerId, joiner: PeerId, now: float, floor: float) -> Issued:
        """Count a use by `joiner`; the invite after it. `NotAdmitted` if it does not hold."""
        found = self.issued.get(invite)
        if found is None:
            raise NotAdmitted("this invite was not made here, or it was withdrawn")
        if found.expires_at <= now or found.issued_at < floor:
            raise NotAdmitted("the invite expired: ask for a new one")
        if joiner in found.used_by:
            return found
        if not found.left:
            raise NotAdmitted("the invite was used up: ask for a new one")
        used = msgspec.structs.replace(found, used_by=(*found.used_by, joiner))
        self.issued[invite] = used
        return used

    def withdraw(self, invite: PeerId) -> bool:
        """Let nobody use `invite` any more; whether it was there."""
        return self.issued.pop(invite, None) is not None

    def dump(self) -> bytes:
        """The ledger as bytes."""
        return msgspec.msgpack.encode(tuple(self.issued.values()))


_decoder = msgspec.msgpack.Decoder(tuple[Issued, ...])


def load_ledger(data: bytes) -> Ledger:
    """What `dump` made; `ProtocolError` if it is damaged."""
    return Ledger({PeerId(one.invite): one for one in decode_header(_decoder, data)})
