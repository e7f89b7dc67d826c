"""`/dslm/swarm/1`: members tell each other who may issue certificates and who was revoked.

Knows the messages and their bounds. One exchange: the opener sends its state, the other answers
with its own and, if its revocation list is later, with that list; if the opener's is later, the
opener sends its list last.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocols import limits
from protocols.messages.hello import Epoch

Documents = Annotated[
    tuple[Annotated[bytes, Meta(max_length=limits.CREDENTIAL_BYTES_MAX)], ...],
    Meta(max_length=limits.DELEGATIONS_MAX),
]


class SwarmState(Struct, frozen=True, tag="state"):
    """Both ways. `revocations` is empty unless the sender knows that it is news."""

    epoch: Epoch
    delegations: Documents = ()
    revocations: Annotated[bytes, Meta(max_length=limits.REVOCATIONS_BYTES_MAX)] = b""


SwarmMessage = SwarmState
