"""Asking the gate, in the one way that every adapter uses: whatever goes wrong there means no.

Knows the `Gate` port and the open protocols; must not know who may do what, nor any network.
"""

import asyncio
import logging

from protocols import access, allowances
from protocols.defects import describe
from protocols.errors import DslmError, NotAdmitted, PeerUnreachable
from protocols.ids import PeerId
from protocols.ports import Allowance, Gate

GREET_SECONDS = 10.0
"""For a dial, the exchange of credentials, and what may have to be asked for in between."""
_logger = logging.getLogger(__name__)


def is_admitted(gate: Gate | None, peer: PeerId, protocol: str) -> bool:
    """Whether `peer` may call our `protocol`; without a gate everybody may."""
    if gate is None or protocol in access.OPEN:
        return True
    try:
        return gate.admits(peer, protocol) is True
    except Exception as error:  # noqa: BLE001 - a gate with a defect must not be an open one
        _logger.warning("the gate failed (%s); %s is refused", describe(error), peer)
        return False


def allowance_of(gate: Gate | None, peer: PeerId) -> Allowance:
    """What `peer` may use of us; a stranger's share if the gate cannot tell."""
    if gate is None:
        return allowances.KNOWN
    try:
        return gate.allowance(peer)
    except Exception as error:  # noqa: BLE001 - as above
        _logger.warning("the gate failed (%s) on the allowance of %s", describe(error), peer)
        return allowances.NOBODY


async def greet(gate: Gate | None, peer: PeerId, protocol: str) -> None:
    """See to it that we and `peer` may speak `protocol`; see `Gate.greet` for its errors.

    `NotAdmitted` as well when the gate has a defect.
    """
    if gate is None or protocol in access.OPEN:
        return
    try:
        async with asyncio.timeout(GREET_SECONDS):
            await gate.greet(peer, protocol)
    except DslmError:
        raise
    except TimeoutError as error:
        raise PeerUnreachable(f"{peer} does not say hello") from error
    except Exception as error:  # as above
        _logger.warning("the gate failed (%s); %s is not called", describe(error), peer)
        raise NotAdmitted("our own gate failed") from error


def forget(gate: Gate | None, peer: PeerId) -> None:
    """Have `peer` greeted anew before the next call; harmless without a gate."""
    if gate is not None:
        gate.forget(peer)
