"""What others found when they dialled us, and which addresses we announce because of it.

Pure: time is an argument and nothing is sent. Knows the evidence; how it is gathered is
`node.swarms.reach`'s business.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from node.swarms.scopes import (
    Scope,
    endpoint_of,
    ip_text,
    is_relayed,
    reason_not_to_dial,
    scope_of,
    scope_of_ip,
    without_peer,
)
from protocols import limits
from protocols.ids import PeerId
from protocols.messages.reach import DIALS_MAX, ReachReply

WITNESSES = 2
"""Different peers that must have reached an address, or all there are."""
EVIDENCE_SECONDS = 900.0
"""For how long a dial says something."""
ENOUGH = 4
"""Peers that were asked about an address, after which it is left alone for a while."""
GUESSES_MAX = 4


class Verdict(StrEnum):
    """What is known about an address."""

    REACHED = "reached"
    """By two peers, or by all there are."""
    UNCONFIRMED = "unconfirmed"
    """Nobody could tell, or not enough of them yet."""
    NOT_REACHED = "not reached"


class _Outcome(Enum):
    REACHED = "reached"
    FAILED = "failed"
    MUTE = "mute"
    """The peer may not dial there: it sees us elsewhere."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one peer found at one address, and when (monotonic seconds)."""

    when: float
    outcome: _Outcome
    reason: str = ""


@dataclass(slots=True)
class _Candidate:
    """An address that may be ours, and what each peer found there."""

    is_guess: bool = False
    """Not an address of ours, but others see our connections come from that IP."""
    findings: dict[PeerId, _Finding] = field(default_factory=dict)

    def outcomes(self, now: float) -> dict[PeerId, _Outcome]:
        """What still says something."""
        return {
            peer: found.outcome
            for peer, found in self.findings.items()
            if _is_recent(found, now, EVIDENCE_SECONDS)
        }


class Reachability:
    """The addresses of one presence in one swarm. Addresses go in and out without `/p2p/`."""

    def __init__(self, operator: Sequence[str] = ()) -> None:
        """`operator` addresses are announced whatever others found: a person named them."""
        self._operator = tuple(map(without_peer, operator))
        self._candidates: dict[str, _Candidate] = {}

    def __repr__(self) -> str:
        return f"<Reachability of {len(self._candidates)} addresses>"

    def set_addresses(self, addresses: Iterable[str]) -> None:
        """What we listen at now; evidence about addresses that are gone is dropped.

        An address that leads nowhere is left out, one that was a guess is none any more.
        """
        ours = [one for one in map(without_peer, addresses) if scope_of(one) is not Scope.NONE]
        kept = {
            one: self._candidates.get(one, _Candidate()) for one in ours[: limits.ADDRESSES_MAX]
        }
        for one in kept.values():
            one.is_guess = False
        ports = _ports(kept)
        for address, one in self._candidates.items():
            endpoint = endpoint_of(address)
            if one.is_guess and endpoint is not None and endpoint.port in ports:
                kept.setdefault(address, one)
        self._candidates = kept

    def record(self, peer: PeerId, asked: Sequence[str], reply: ReachReply, now: float) -> None:
        """Take note of what `peer` found at the addresses that it was `asked` to dial."""
        if reply.refused:
            return
        reasons = dict(line.partition(": ")[::2] for line in reply.failed)
        for address in asked:
            if address not in self._candidates:
                continue
            findings = self._candidates[address].findings
            for other in [one for one in findings if now - findings[one].when > EVIDENCE_SECONDS]:
                del findings[other]
            if address in reply.reached:
                findings[peer] = _Finding(now, _Outcome.REACHED)
            elif reason_not_to_dial(address, reply.observed):
                findings[peer] = _Finding(now, _Outcome.MUTE)
            else:
                reason = reasons.get(address, "no answer")
                findings[peer] = _Finding(now, _Outcome.FAILED, reason)
        self._guess(reply.observed)

    def record_silence(self, peer: PeerId, asked: Sequence[str], now: float) -> None:
        """`peer` gave no answer: it cannot tell, and is left alone for a while."""
        self.record(peer, asked, ReachReply(), now)

    def is_settled(self, there: Collection[PeerId], now: float) -> bool:
        """Whether it is no use to ask now: each address was reached not long ago, or enough peers
        have said what they know of it."""
        later = now + EVIDENCE_SECONDS / 3
        return all(
            self.verdict(address, there, later) is Verdict.REACHED
            or len(one.outcomes(later)) >= ENOUGH
            for address, one in self._candidates.items()
            if endpoint_of(address) is not None
        )

    def to_ask(
        self, peer: PeerId, seen_at: Sequence[str], now: float, most: int = DIALS_MAX
    ) -> tuple[str, ...]:
        """The addresses that `peer` should dial now, at most `most`; those first that are where its
        own connection to us comes from (`seen_at`): it probably sees us there too.

        Addresses of which it told less than a third of the evidence's life ago are left out.
        """
        scopes = {scope_of(one) for one in seen_at}
        due = [
            address
            for address, one in self._candidates.items()
            if endpoint_of(address) is not None
            and not _is_recent(one.findings.get(peer), now, EVIDENCE_SECONDS / 3)
        ]

        def order(address: str) -> tuple[bool, int]:
            return scope_of(address) not in scopes, -scope_of(address)

        return tuple(sorted(due, key=order)[:most])

    def verdict(self, address: str, there: Collection[PeerId], now: float) -> Verdict:
        """What is known about `address` while the peers `there` could be asked."""
        one = self._candidates.get(without_peer(address))
        if one is None:
            return Verdict.UNCONFIRMED
        outcomes = one.outcomes(now)
        told = Counter(outcomes.values())
        mute = {peer for peer, outcome in outcomes.items() if outcome is _Outcome.MUTE}
        can_tell = len((set(there) | outcomes.keys()) - mute)
        reached = told[_Outcome.REACHED]
        if reached and reached >= min(WITNESSES, can_tell):
            return Verdict.REACHED
        return Verdict.NOT_REACHED if told[_Outcome.FAILED] else Verdict.UNCONFIRMED

    def reached(self, there: Collection[PeerId], now: float) -> tuple[str, ...]:
        """Addresses at which others have reached us, widest scope first."""
        return tuple(
            address
            for address in self._ordered()
            if self.verdict(address, there, now) is Verdict.REACHED
        )

    def announced(self, there: Collection[PeerId], now: float) -> tuple[str, ...]:
        """What to tell others: the operator's word, relays, and what was reached.

        While nothing was reached, the addresses that nobody found closed stand in: with nobody
        there to ask, they are all there is to go by.
        """
        reached = self.reached(there, now)
        stand_ins = () if reached else self._not_refuted(there, now)
        relays = (one for one in self._candidates if is_relayed(one))
        chosen = dict.fromkeys((*self._operator, *reached, *relays, *stand_ins))
        return tuple(chosen)[: limits.ADDRESSES_MAX]

    def widest(self, there: Collection[PeerId], now: float) -> Scope:
        """From how far away others have reached us; `NONE` if from nowhere."""
        return max(map(scope_of, self.reached(there, now)), default=Scope.NONE)

    def reasons(self, now: float) -> tuple[str, ...]:
        """For each failed dial, `address: reason`; each once, the latest first."""
        failures = [
            (found.when, f"{address}: {found.reason}")
            for address, one in self._candidates.items()
            for found in one.findings.values()
            if found.outcome is _Outcome.FAILED and _is_recent(found, now, EVIDENCE_SECONDS)
        ]
        return tuple(dict.fromkeys(text for _, text in sorted(failures, reverse=True)))

    def forget(self) -> None:
        """All evidence is void: the network around us changed."""
        for one in self._candidates.values():
            one.findings.clear()

    # ----------------------------------------------------------------------------------------

    def _ordered(self) -> list[str]:
        return sorted(self._candidates, key=lambda address: -scope_of(address))

    def _not_refuted(self, there: Collection[PeerId], now: float) -> tuple[str, ...]:
        return tuple(
            address
            for address in self._ordered()
            if not self._candidates[address].is_guess
            and self.verdict(address, there, now) is Verdict.UNCONFIRMED
        )

    def _guess(self, observed: Sequence[str]) -> None:
        """A router may pass our port on at the public IP that others see: have it tried."""
        for endpoint in filter(None, map(endpoint_of, observed)):
            if scope_of_ip(endpoint.ip) is not Scope.PUBLIC:
                continue
            kind, ip = ip_text(endpoint.ip)
            for port in sorted(_ports(self._candidates)):
                address = f"/{kind}/{ip}/tcp/{port}"
                if address not in self._candidates and self._has_room_to_guess():
                    self._candidates[address] = _Candidate(is_guess=True)

    def _has_room_to_guess(self) -> bool:
        """Guesses that nobody reached make room, so that a liar's do not stay."""
        guesses = [address for address, one in self._candidates.items() if one.is_guess]
        if len(guesses) < GUESSES_MAX:
            return True
        for address in guesses:
            found = self._candidates[address].findings.values()
            if found and not any(one.outcome is _Outcome.REACHED for one in found):
                del self._candidates[address]
                return True
        return False


def _is_recent(found: _Finding | None, now: float, seconds: float) -> bool:
    return found is not None and now - found.when < seconds


def _ports(addresses: Iterable[str]) -> set[int]:
    return {endpoint.port for endpoint in map(endpoint_of, addresses) if endpoint is not None}
