"""`/dslm/hello/1`: on first contact, two peers show each other why they may be in the swarm.

Knows the messages and their bounds. The connection's handshake has proven both peer ids already, so
a credential that was copied from somebody else is worth nothing here.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocols import limits

SwarmText = Annotated[str, Meta(max_length=64)]
Epoch = Annotated[int, Meta(ge=0, le=2**63 - 1)]
CredentialBytes = Annotated[bytes, Meta(max_length=2 * limits.CREDENTIAL_BYTES_MAX)]


class Hello(Struct, frozen=True, tag="hello"):
    """Both ways. Private swarms look at `credential`, public ones at `proof` (of work).

    `epoch` is that of the sender's revocation list.
    """

    swarm: SwarmText
    epoch: Epoch = 0
    credential: CredentialBytes = b""
    proof: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class Rejected(Struct, frozen=True, tag="rejected"):
    """Server: no. `reason` is for people and says nothing about the swarm."""

    reason: Annotated[str, Meta(max_length=limits.TEXT_BYTES_MAX)] = ""


HELLO_BYTES_MAX = 3 * limits.CREDENTIAL_BYTES_MAX
"""What is read of a stranger at most: a credential and some words around it."""

HelloMessage = Hello | Rejected
