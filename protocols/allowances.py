"""What a peer may use of us, by its standing: a newcomer little, a member of a private swarm more.

Knows the numbers; who has which standing is the gate's business.
"""

from protocols import limits
from protocols.ports import Allowance

NOBODY = Allowance(requests_per_second=1, burst=4, streams=2, answers=0, tokens=0, records=0)
"""Before admission: enough to say hello."""
NEWCOMER = Allowance(requests_per_second=10, burst=40, streams=8, answers=1, tokens=256, records=64)
"""A stranger in a public swarm."""
KNOWN = Allowance(
    requests_per_second=20,
    burst=60,
    streams=limits.STREAMS_IN_PER_PEER_MAX,
    answers=4,
    tokens=1_024,
    records=512,
)
"""A stranger in a public swarm who has been of use or at least no trouble for a while."""
MEMBER = Allowance(
    requests_per_second=50,
    burst=200,
    streams=limits.STREAMS_IN_PER_PEER_MAX,
    answers=16,
    tokens=0,
    records=1_024,
)
"""Somebody whom the owner of a private swarm let in."""
