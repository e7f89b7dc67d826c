"""Those who have no place in a private swarm, each with what it can show, and what it asks for.

`CASES` names the ways to have no place; `SAMPLES` holds one good request per protocol, so that
whatever comes back was given away.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from protocols import versions
from protocols.ids import PeerId
from protocols.membership.book import credential_of
from protocols.messages.ask import Ask, Sampling, Text
from protocols.messages.info import InfoRequest
from protocols.messages.memory import PageLayout, Want
from protocols.messages.reach import ReachRequest
from protocols.messages.swarm import SwarmState
from tests.simulation.members import DAY, Owner, certify, credential, identity_of

ROOT = Path(__file__).resolve().parents[2]
ISSUER = identity_of("issuer")
MEMBER = identity_of("member")
REVOKED = identity_of("revoked")
INTRUDER = identity_of("intruder")

CASES = (
    "no certificate",
    "expired",
    "other swarm",
    "revoked",
    "someone else's",
    "replayed",
    "issued by a non-issuer",
)
SAMPLES: Mapping[str, msgspec.Struct] = {
    versions.ASK: Ask("r", 0, "x", Text("hi"), Sampling(), 1, 5.0),
    versions.INFO: InfoRequest(1, versions.SOFTWARE),
    versions.SWARM: SwarmState(0),
    versions.MEMORY: Want("t", PageLayout("b", "fp32", 1, 1, 1, 16), "i8", (bytes(16),)),
    versions.REACH: ReachRequest(("/ip4/127.0.0.1/tcp/1",)),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What an intruder shows, and who it is (the revoked are themselves)."""

    peer: PeerId
    credential: bytes


def shown(case: str, owner: Owner, now: float, intruder: PeerId = INTRUDER.peer_id) -> Shown:
    """What belongs to a case of `CASES`."""
    charter = owner.charter
    delegation = owner.delegate(ISSUER.peer_id, now)
    match case:
        case "no certificate":
            return Shown(intruder, b"")
        case "expired":
            return Shown(intruder, credential(owner, ISSUER, intruder, now - DAY - 1))
        case "other swarm":
            return Shown(intruder, credential(Owner("elsewhere"), ISSUER, intruder, now))
        case "revoked":
            return Shown(REVOKED.peer_id, credential(owner, ISSUER, REVOKED.peer_id, now))
        case "someone else's" | "replayed":
            return Shown(intruder, credential(owner, ISSUER, MEMBER.peer_id, now))
        case "issued by a non-issuer":
            made = certify(MEMBER, charter, intruder, now)
            return Shown(intruder, credential_of(made, delegation))
    raise ValueError(case)


@cache
def served_protocols() -> frozenset[str]:
    """Every protocol for which the packages contain a call of `serve`, by reading the source.

    A handler whose protocol is no name of `protocols.versions` is returned as its source text.
    """
    return frozenset(
        protocol
        for package in ("node", "coordinator", "protocols")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "adapters" not in path.parts
        for text in [path.read_text(encoding="utf-8")]
        if ".serve" in text  # or else there is nothing to parse it for
        for protocol in _served_in(ast.parse(text))
    )


def _served_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or len(node.args) != 2:
            continue
        if not isinstance(node.func, ast.Attribute) or node.func.attr != "serve":
            continue
        named = node.args[0]
        if isinstance(named, ast.Attribute) and isinstance(named.value, ast.Name):
            yield getattr(versions, named.attr, ast.unparse(named))
        else:
            yield ast.unparse(named)
