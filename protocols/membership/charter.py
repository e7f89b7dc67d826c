"""A swarm's charter: its name, its owner, whether strangers may come; its id is their hash.

Knows how a swarm is identified; must not know its members. A charter needs no signature, because
whoever changes a word of it names another swarm.
"""

import hashlib
from functools import lru_cache
from typing import Annotated

from msgspec import Meta, Struct

from protocols.errors import ProtocolError
from protocols.ids import PeerId, SwarmId, parse_peer_id, parse_specialist_id, public_key_of

PROOF_BITS = 16
"""Work that a public swarm asks of an identity: about 65,000 hashes, a tenth of a second."""
_DOMAIN = b"dslm/swarm/1\0"
_NO_OWNER = bytes(32)


class Charter(Struct, frozen=True):
    """What a swarm is. `owner` is the peer id form of the owner's key, or empty.

    A swarm without an owner is public, and everybody who names it so is in the same one; nobody
    can be revoked there.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    owner: Annotated[str, Meta(max_length=64)] = ""
    is_private: bool = False

    @property
    def swarm(self) -> SwarmId:
        """The swarm's id: hex SHA-256 of the owner's public key, the kind and the name."""
        return _swarm_id(self.owner, self.is_private, self.name)

    def check(self) -> "Charter":
        """Itself; `ProtocolError` if it cannot be a swarm's."""
        if "/" in self.name:
            raise ProtocolError("a swarm's name has no /")
        parse_specialist_id(self.name)
        if self.owner:
            parse_peer_id(self.owner)
        elif self.is_private:
            raise ProtocolError("a private swarm has an owner")
        return self


@lru_cache(maxsize=64)
def _swarm_id(owner: str, is_private: bool, name: str) -> SwarmId:
    """Asked for with every message, so it is not computed anew each time."""
    key = public_key_of(owner) if owner else _NO_OWNER
    kind = b"private\0" if is_private else b"public\0"
    return SwarmId(hashlib.sha256(_DOMAIN + key + kind + name.encode()).hexdigest())


def open_charter(name: str) -> Charter:
    """The public swarm of that name that belongs to nobody."""
    return Charter(name).check()


def owner_of(charter: Charter) -> PeerId:
    """The owner; `ProtocolError` if there is none."""
    if not charter.owner:
        raise ProtocolError(f"the swarm {charter.name} belongs to nobody")
    return PeerId(charter.owner)
