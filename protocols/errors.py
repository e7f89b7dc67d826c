"""Every failure that dslm names, as one small tree by cause; each leaf says whose fault it is.

Knows causes and whether trying again can help; must not know how a user is told (HTTP, exit code).
"""

from enum import StrEnum
from typing import ClassVar


class Fault(StrEnum):
    """Who has to change something for the error to go away."""

    CALLER = "caller"
    PEER = "peer"
    NETWORK = "network"
    US = "us"


class DslmError(Exception):
    """Root of all errors that dslm raises on purpose. `str(error)` is fit for a user."""

    code: ClassVar[str] = "error"
    fault: ClassVar[Fault] = Fault.US
    retry: ClassVar[bool] = False
    """Whether the same request can succeed later or on another peer."""


class ProtocolError(DslmError):
    """A peer sent bytes that break the protocol: malformed, oversized, out of order, unsigned."""

    code = "protocol_error"
    fault = Fault.PEER
    retry = True


class RecordError(ProtocolError):
    """A signed record that is not to be believed: wrong signer, bad signature, expired, too big."""

    code = "record_error"


class VersionError(ProtocolError):
    """Two peers share no version of a protocol. Carries both sides' versions in its text."""

    code = "version_mismatch"
    retry = False


class Refused(DslmError):
    """A peer understood a request and will not do it."""

    code = "refused"
    fault = Fault.PEER
    retry = True


class Busy(Refused):
    """The peer is full. `retry_after` is in seconds."""

    code = "busy"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotHere(Refused):
    """The peer does not host the specialist that was asked for."""

    code = "not_here"


class TooLong(Refused):
    """Prompt and answer do not fit the model's context. Counts are in tokens."""

    code = "context_length_exceeded"
    fault = Fault.CALLER
    retry = False

    def __init__(self, limit: int, requested: int) -> None:
        super().__init__(
            f"This model's maximum context length is {limit} tokens. However, your request needs "
            f"{requested} tokens. Please shorten the prompt or lower max_tokens."
        )
        self.limit = limit
        self.requested = requested


class Unsupported(Refused):
    """The request names something that no peer of this version can do."""

    code = "unsupported"
    fault = Fault.CALLER
    retry = False


class NotAdmitted(Refused):
    """A peer has no place in the swarm, or none that allows what was asked. Says why."""

    code = "not_admitted"
    retry = False


class NetworkError(DslmError):
    """Something between two peers failed; neither did anything wrong."""

    code = "network_error"
    fault = Fault.NETWORK
    retry = True


class PeerUnreachable(NetworkError):
    """No connection to a peer could be made."""

    code = "peer_unreachable"


class PeerLost(NetworkError):
    """A peer was there and went away in the middle."""

    code = "peer_lost"


class DeadlineExceeded(NetworkError):
    """A peer did not answer in the time it was given."""

    code = "deadline_exceeded"


class TransportDown(NetworkError):
    """Our own network daemon is not running at the moment."""

    code = "transport_down"
    fault = Fault.US


class NoCapacity(DslmError):
    """Nobody reachable can serve the request now. `retry_after` is in seconds."""

    code = "no_capacity"
    fault = Fault.NETWORK
    retry = True

    def __init__(self, message: str, retry_after: float = 2.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnknownModel(DslmError):
    """No specialist of that name is known. `nearest` holds up to three similar names."""

    code = "model_not_found"
    fault = Fault.CALLER

    def __init__(self, name: str, nearest: tuple[str, ...] = ()) -> None:
        hint = f" Did you mean: {', '.join(nearest)}?" if nearest else " `dslm ls` lists them."
        super().__init__(f"The model {name!r} is not known in this swarm.{hint}")
        self.name = name
        self.nearest = nearest


class UnknownPeer(DslmError):
    """No peer, or more than one, goes by the name that was given."""

    code = "peer_not_found"
    fault = Fault.CALLER


class UserError(DslmError):
    """The person at the keyboard can mend this: the text says what is wrong and what to do."""

    code = "user_error"
    fault = Fault.CALLER


class ConfigError(UserError):
    """A setting cannot be used. The text names the setting and where it came from."""

    code = "config_error"


class ModelFileError(UserError):
    """A model file is missing, of an unknown kind, damaged, or of an unsupported architecture."""

    code = "model_file_error"


class AddressInUse(UserError):
    """A port that we were told to listen on is taken."""

    code = "address_in_use"


class NotRunning(UserError):
    """A command needs the daemon, and no daemon answers."""

    code = "not_running"
