"""Which protocol asks for which role: the one table behind every gate.

Knows names of protocols and roles; a protocol that is not in the table is closed to everybody, so a
new handler without a line here does nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from protocols import versions
from protocols.membership.documents import Role

_ASKING = frozenset({Role.USER, Role.NODE, Role.TRAINER})
_ANY = frozenset(Role)
_HOSTING = frozenset({Role.NODE})


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a protocol, and whom we call with it; one role of the set is enough."""

    callers: frozenset[Role]
    servers: frozenset[Role]


OPEN: frozenset[str] = frozenset({versions.HELLO, versions.ENROL})
"""What a stranger may speak: it leads to admission, and gives nothing away."""

DHT_PING, DHT_FIND, DHT_STORE = (f"DHTProtocol.rpc_{name}" for name in ("ping", "find", "store"))

TABLE: Mapping[str, Access] = {
    versions.ASK: Access(_ASKING, _HOSTING),
    versions.INFO: Access(_ANY, _ANY),
    versions.MEMORY: Access(_HOSTING, _HOSTING),
    versions.SWARM: Access(_ANY, _ANY),
    versions.REACH: Access(_ANY, _ANY),
    DHT_PING: Access(_ANY, _ANY),
    DHT_FIND: Access(_ANY, _ANY),
    DHT_STORE: Access(_HOSTING | {Role.ISSUER}, _ANY),
}
