"""Exit codes: what a script can tell from how a command ended.

Knows every error's code; must not print anything.
"""

from enum import IntEnum

from node.cli.client import ApiError
from protocols.errors import (
    DeadlineExceeded,
    DslmError,
    NetworkError,
    NoCapacity,
    NotAdmitted,
    NotRunning,
    UnknownModel,
    UnknownPeer,
    UserError,
)


class Exit(IntEnum):
    """The meaning of each code; anything else does not occur."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    UNKNOWN = 4
    """Unknown model, peer or swarm."""
    NO_CAPACITY = 5
    """No peer, or none that can answer, is reachable."""
    REFUSED = 6
    TIMED_OUT = 7
    INTERRUPTED = 130


class UsageError(UserError):
    """The command line makes no sense."""

    code = "usage"


class UnknownSwarm(UserError):
    """This node is in no swarm of that name."""

    code = "swarm_not_found"


_BY_KIND: tuple[tuple[type[DslmError], Exit], ...] = (
    (UsageError, Exit.USAGE),
    (UnknownSwarm, Exit.UNKNOWN),
    (NotRunning, Exit.NOT_RUNNING),
    (UnknownModel, Exit.UNKNOWN),
    (UnknownPeer, Exit.UNKNOWN),
    (DeadlineExceeded, Exit.TIMED_OUT),
    (NotAdmitted, Exit.REFUSED),
    (NetworkError, Exit.NO_CAPACITY),
    (NoCapacity, Exit.NO_CAPACITY),
)
_BY_CODE = {
    "model_not_found": Exit.UNKNOWN,
    "peer_not_found": Exit.UNKNOWN,
    "no_capacity": Exit.NO_CAPACITY,
    "queue_full": Exit.NO_CAPACITY,
    "draining": Exit.NO_CAPACITY,
    "busy": Exit.NO_CAPACITY,
    "network_error": Exit.NO_CAPACITY,
    "peer_unreachable": Exit.NO_CAPACITY,
    "peer_lost": Exit.NO_CAPACITY,
    "transport_down": Exit.NO_CAPACITY,
    "timeout": Exit.TIMED_OUT,
    "deadline_exceeded": Exit.TIMED_OUT,
    "invalid_api_key": Exit.REFUSED,
    "forbidden": Exit.REFUSED,
    "swarm_forbidden": Exit.REFUSED,
    "not_admitted": Exit.REFUSED,
    "swarm_not_found": Exit.UNKNOWN,
    "not_running": Exit.NOT_RUNNING,
}


def advice_for(error: DslmError) -> str:
    """What to do about an error that the API told of in words for any client; may be empty."""
    if exit_of(error) is Exit.NO_CAPACITY and isinstance(error, ApiError):
        return (
            "`dslm peers` shows who is there, `dslm join INVITE` enters a swarm, "
            "`dslm up --model smollm2` hosts a model here"
        )
    return ""


def exit_of(error: DslmError) -> Exit:
    """The exit code for an error, ours or one that the API told of."""
    for kind, code in _BY_KIND:
        if isinstance(error, kind):
            return code
    if isinstance(error, ApiError):
        return _BY_CODE.get(error.api_code, Exit.FAILED)
    return Exit.FAILED
