"""What people are told about a node's state."""

import msgspec
import pytest

from node.cli.exits import UsageError
from node.cli.join import read_target
from node.cli.status import describe, invitation, problems
from node.gateway.fake import FixedView
from node.state import HostedState, NodeState

PEER = "12D3KooWKZZz7y5bxekHwRgf2mFs38Uump9pMnzF7DizDsaczQwd"


def _state(**changes: object) -> NodeState:
    state = msgspec.structs.replace(FixedView().state(), peer=PEER, api_url="http://127.0.0.1:1")
    return msgspec.structs.replace(state, **changes)


def test_a_healthy_node_has_no_problems() -> None:
    assert problems(_state(known_peers=2, known_specialists=1)) == []


def test_problems_come_with_a_way_out() -> None:
    found = problems(_state(network="down", draining=True, known_peers=1))
    assert len(found) == 4
    assert any("dslm join INVITE" in line for line in found)


def test_an_invitation_prefers_an_address_that_others_can_reach() -> None:
    addresses = (f"/ip4/127.0.0.1/tcp/7779/p2p/{PEER}", f"/ip4/192.0.2.7/tcp/7779/p2p/{PEER}")
    invited = invitation(_state(addresses=addresses))
    assert invited == f"dslm join {addresses[1]}"
    read_target(invited.removeprefix("dslm join "))


def test_an_invitation_ends_in_the_peer_id() -> None:
    assert invitation(_state(addresses=("/ip4/192.0.2.7/tcp/1",))).endswith(f"/p2p/{PEER}")


def test_a_description_without_addresses_invites_nobody() -> None:
    text = "\n".join(describe(_state()))
    assert PEER in text
    assert "hosting  nothing" in text
    assert "invite" not in text


def test_specialists_on_one_base_are_told_together() -> None:
    base = HostedState("b", "0" * 64, "int4", 2048, 1, 120_000_000, (), 0, 0, 8, 97_000_000)
    base = msgspec.structs.replace(base, copy="b")
    law = msgspec.structs.replace(base, id="law", own=10_000_000, weights=107_000_000)
    math = msgspec.structs.replace(law, id="math")
    text = "\n".join(describe(_state(hosted=(law, base, math))))
    assert (
        "hosting  b (int4, 97.0 MB, context 2048, 8 slots), and on it law, math (20.0 MB)" in text
    )


@pytest.mark.parametrize(
    "address", ["", "bad", "192.0.2.7:7779", "/ip4/192.0.2.7/tcp/7779", f"/p2p/{PEER}"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="dslm status"):
        read_target(address)
