"""How long to wait for what, from what was measured of a peer.

Knows numbers only. The constants are starting points, taken from the recovery targets: a killed
peer is noticed at once by its broken stream, a frozen one by these deadlines.
"""

from coordinator.measure import PeerMeasurements
from protocols.ids import PeerId

HEDGE_MIN = 1.0
HEDGE_FACTOR = 4.0
FIRST_SIGN_MIN = 5.0
FIRST_SIGN_FACTOR = 4.0
TOKEN_MIN = 2.0
TOKEN_FACTOR = 8.0
LAST_HOPE_FACTOR = 4.0
"""A silent peer gets that many times as long where nobody else is left who has not failed: on a
busy machine it is more often slow than dead, and giving it up would end the answer."""


def hedge_after(measurements: PeerMeasurements, peer: PeerId) -> float:
    """Seconds without a first token after which a second peer is asked as well."""
    return max(HEDGE_MIN, HEDGE_FACTOR * measurements.expected_first_token(peer))


def silence_before_tokens(measurements: PeerMeasurements, peer: PeerId) -> float:
    """Seconds without any message, before its first token, after which a peer is given up."""
    return max(FIRST_SIGN_MIN, FIRST_SIGN_FACTOR * measurements.expected_first_token(peer))


def silence_between_tokens(measurements: PeerMeasurements, peer: PeerId) -> float:
    """Seconds without any message, after its first token, after which a peer is given up."""
    return max(TOKEN_MIN, TOKEN_FACTOR * measurements.expected_gap(peer))
