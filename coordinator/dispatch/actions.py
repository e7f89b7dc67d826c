"""What a run wants done, as values: the dispatcher does these and nothing else.

Knows the shapes only.
"""

from dataclasses import dataclass

from coordinator.answer import AnswerEvent
from protocols.errors import DslmError
from protocols.ids import PeerId
from protocols.messages.ask import Ask


@dataclass(frozen=True, slots=True)
class Start:
    """Ask `peer`; report what comes under `number`."""

    number: int
    peer: PeerId
    ask: Ask


@dataclass(frozen=True, slots=True)
class Drop:
    """Cancel an attempt; nothing it reports matters any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Predial:
    """Open a connection to `peer`, in case it is needed soon."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Look on the network for more replicas."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell the client."""

    event: AnswerEvent


@dataclass(frozen=True, slots=True)
class End:
    """The request is over: with `error`, or completely when that is None."""

    error: DslmError | None = None


Action = Start | Drop | Predial | LookAgain | Emit | End
