"""How good the network is: delays, losses, windows and time limits, as one value.

Knows numbers only; the network draws from them with its seeded generator.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Conditions:
    """Times are in seconds, one way where they are delays; losses are probabilities."""

    delay_min: float = 0.0005
    delay_max: float = 0.005
    """Each pair of peers has its own base delay, drawn once between these two."""
    jitter: float = 0.2
    """Each delivery takes up to this share longer than the base delay."""
    dial_loss: float = 0.0
    """How often an attempt to dial comes to nothing."""
    stream_loss: float = 0.0
    """How often a new stream is one that will break, within `stream_life_max`."""
    stream_life_max: float = 5.0
    dial_timeout: float = 5.0
    """After this an unanswered dial or an unanswered opening of a stream gives up."""
    dead_after: float = 40.0
    """After this long without a way through, a connection is given up at both ends."""
    window: int = 65_536
    """Bytes on the way or unread in one direction of a stream before its sender waits."""
    replicas: int = 5
    """Peers that keep a copy of a record, as in hivemind's table."""
