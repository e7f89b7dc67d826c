"""`dslm peers`: who is in the swarm, as this node knows and measured it.

Knows one table; the numbers are the node's.
"""

from node.cli.output import optional, short_peer, show_json, show_table
from node.cli.settings import SwarmFlag, in_swarm
from node.cli.verb import Invocation, verb
from node.state import PeersState

EPILOG = """\b
Examples:
  dslm peers
  dslm peers -v          whole peer ids and addresses
  dslm peers --json
"""


@verb
def peers(invocation: Invocation, swarm: SwarmFlag = "") -> None:
    """List the peers of the swarm with this node's own measurements of them."""
    state = invocation.client().get(in_swarm("/api/v1/peers", swarm), PeersState)
    if invocation.json:
        show_json(state)
        return
    rows = [
        (
            peer.name or "-",
            peer.peer if invocation.verbose else short_peer(peer.peer),
            "self" if peer.is_self else peer.state,
            " ".join(peer.specialists) or "-",
            optional(peer.rtt_ms),
            optional(peer.first_token_ms, digits=0),
            optional(peer.tokens_per_second),
            " ".join(peer.addresses) if invocation.verbose else peer.last_error,
        )
        for peer in state.peers
    ]
    last = "ADDRESSES" if invocation.verbose else "LAST ERROR"
    titles = ("NAME", "PEER", "STATE", "SPECIALISTS", "RTT MS", "FIRST MS", "TOK/S", last)
    show_table(titles, rows)
