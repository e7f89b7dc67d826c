"""Which addresses are announced, given what others found."""

from node.swarms.reachability import EVIDENCE_SECONDS, GUESSES_MAX, Reachability, Verdict
from node.swarms.scopes import Scope
from protocols.ids import PeerId
from protocols.messages.reach import ReachReply

PUBLIC, LAN, LOOPBACK = "/ip4/45.90.7.1/tcp/9", "/ip4/10.0.0.2/tcp/9", "/ip4/127.0.0.1/tcp/9"
OURS = (LOOPBACK, LAN, PUBLIC)
A, B, C = (PeerId(name) for name in "ABC")
FROM_OUTSIDE = ("/ip4/45.90.7.1/tcp/50000",)
FROM_LAN = ("/ip4/10.0.0.2/tcp/50000",)


def fresh(*addresses: str, operator: tuple[str, ...] = ()) -> Reachability:
    found = Reachability(operator)
    found.set_addresses(addresses or OURS)
    return found


def yes(*addresses: str, observed: tuple[str, ...] = FROM_OUTSIDE) -> ReachReply:
    return ReachReply(addresses, observed)


def no(address: str, observed: tuple[str, ...] = FROM_OUTSIDE) -> ReachReply:
    return ReachReply((), observed, (f"{address}: connection refused",))


def test_with_nobody_there_everything_usable_is_announced() -> None:
    found = fresh(*OURS, "/ip4/0.0.0.0/tcp/9")
    assert found.announced((), 0.0) == (PUBLIC, LAN, LOOPBACK)
    assert found.reached((), 0.0) == ()
    assert found.widest((), 0.0) is Scope.NONE


def test_two_different_peers_are_needed_where_there_are_more() -> None:
    found = fresh()
    found.record(A, OURS, yes(PUBLIC), 0.0)
    found.record(A, OURS, yes(PUBLIC), 1.0)
    assert found.reached((A, B, C), 1.0) == ()
    found.record(B, OURS, yes(PUBLIC), 2.0)
    assert found.reached((A, B, C), 2.0) == (PUBLIC,)
    assert found.announced((A, B, C), 2.0) == (PUBLIC,)


def test_the_only_peer_is_all_there_are() -> None:
    found = fresh()
    found.record(A, OURS, yes(PUBLIC), 0.0)
    assert found.reached((A,), 0.0) == (PUBLIC,)
    assert found.widest((A,), 0.0) is Scope.PUBLIC


def test_peers_that_cannot_tell_do_not_count() -> None:
    """One of three is on our network; it alone can dial the LAN address."""
    found = fresh(LAN, PUBLIC)
    found.record(A, (LAN, PUBLIC), yes(LAN, observed=FROM_LAN), 0.0)
    assert found.reached((A, B, C), 0.0) == ()
    for peer in (B, C):
        found.record(peer, (LAN, PUBLIC), yes(PUBLIC), 0.0)
    assert found.reached((A, B, C), 0.0) == (PUBLIC, LAN)


def test_an_address_that_was_found_closed_is_not_announced() -> None:
    found = fresh()
    found.record(A, OURS, no(PUBLIC), 0.0)
    assert found.verdict(PUBLIC, (A,), 0.0) is Verdict.NOT_REACHED
    assert found.announced((A,), 0.0) == (LAN, LOOPBACK)
    assert found.reasons(0.0) == (f"{PUBLIC}: connection refused",)


def test_one_liar_does_not_close_what_two_have_reached() -> None:
    found = fresh()
    for peer in (A, B):
        found.record(peer, OURS, yes(PUBLIC), 0.0)
    found.record(C, OURS, no(PUBLIC), 0.0)
    assert found.reached((A, B, C), 0.0) == (PUBLIC,)


def test_a_yes_and_a_no_are_not_enough() -> None:
    found = fresh()
    found.record(A, OURS, yes(PUBLIC), 0.0)
    found.record(B, OURS, no(PUBLIC), 0.0)
    assert found.verdict(PUBLIC, (A, B), 0.0) is Verdict.NOT_REACHED


def test_a_local_address_counts_inside_its_scope_only() -> None:
    """Reached over loopback says nothing about the way from outside."""
    found = fresh()
    found.record(A, OURS, yes(LOOPBACK, observed=("/ip4/127.0.0.1/tcp/5",)), 0.0)
    assert found.widest((A,), 0.0) is Scope.LOOPBACK
    assert found.reached((A,), 0.0) == (LOOPBACK,)
    assert found.verdict(PUBLIC, (A,), 0.0) is Verdict.UNCONFIRMED


def test_the_word_of_the_operator_and_relays_are_announced_in_any_case() -> None:
    named, relay = "/dns4/node.example.org/tcp/443", PUBLIC + "/p2p/R/p2p-circuit"
    found = Reachability((named + "/p2p/X",))
    found.set_addresses((LAN, relay + "/p2p/X"))
    found.record(A, (LAN,), no(LAN, FROM_LAN), 0.0)
    assert found.announced((A,), 0.0) == (named, relay)
    assert found.to_ask(B, (), 0.0) == (LAN,)


def test_evidence_grows_old() -> None:
    found = fresh()
    found.record(A, OURS, yes(PUBLIC), 0.0)
    assert found.reached((A,), EVIDENCE_SECONDS - 1) == (PUBLIC,)
    assert found.reached((A,), EVIDENCE_SECONDS + 1) == ()


def test_evidence_goes_with_its_address() -> None:
    found = fresh()
    found.record(A, OURS, yes(PUBLIC), 0.0)
    found.set_addresses((LAN,))
    found.set_addresses(OURS)
    assert found.reached((A,), 0.0) == ()


def test_a_refusal_says_nothing() -> None:
    found = fresh()
    found.record(A, OURS, ReachReply(refused="one request in 20 seconds"), 0.0)
    assert set(found.to_ask(A, (), 0.0)) == set(OURS)


def test_an_answer_about_other_addresses_is_ignored() -> None:
    found = fresh()
    found.record(A, (LAN,), yes(PUBLIC, "/ip4/9.9.9.9/tcp/1"), 0.0)
    assert found.reached((A,), 0.0) == ()


def test_first_asked_is_what_the_peer_can_probably_dial() -> None:
    found = fresh()
    assert found.to_ask(A, ("/ip4/10.0.0.9/tcp/1",), 0.0, most=1) == (LAN,)
    assert found.to_ask(A, ("/ip4/127.0.0.1/tcp/1",), 0.0) == (LOOPBACK, PUBLIC, LAN)


def test_a_peer_is_not_asked_the_same_again_soon() -> None:
    found = fresh()
    found.record(A, OURS, yes(PUBLIC), 0.0)
    assert found.to_ask(A, (), 1.0) == ()
    assert found.to_ask(B, (), 1.0) != ()
    assert PUBLIC in found.to_ask(A, (), EVIDENCE_SECONDS / 3 + 1)


def test_settled_when_reached_or_when_enough_have_spoken() -> None:
    found = fresh(PUBLIC)
    there = tuple(PeerId(name) for name in "ABCDE")
    assert not found.is_settled(there, 0.0)
    for peer in there[:2]:
        found.record(peer, (PUBLIC,), yes(PUBLIC), 0.0)
    assert found.is_settled(there, 0.0)
    assert not found.is_settled(there, EVIDENCE_SECONDS * 0.9)
    found.forget()
    for peer in there[:4]:
        found.record_silence(peer, (PUBLIC,), 0.0)
    assert found.is_settled(there, 0.0)


def test_a_forwarded_port_is_found_by_a_guess() -> None:
    """Behind a router that passes the port on: others see its address, we do not."""
    found = fresh(LAN)
    found.record(A, (LAN,), ReachReply((), FROM_OUTSIDE), 0.0)
    assert PUBLIC in found.to_ask(B, (), 1.0)
    assert PUBLIC not in found.announced((A, B), 1.0)
    for peer in (A, B):
        found.record(peer, (PUBLIC,), yes(PUBLIC), 2.0)
    assert found.announced((A, B), 2.0) == (PUBLIC,)
    found.set_addresses((LAN,))
    assert found.reached((A, B), 2.0) == (PUBLIC,)


def test_guesses_are_few_and_a_liars_make_room() -> None:
    found = fresh(LAN)
    lies = tuple(f"/ip4/45.90.8.{last}/tcp/5" for last in range(10))
    found.record(A, (LAN,), ReachReply((), lies), 0.0)
    asked = found.to_ask(B, (), 0.0, most=20)
    assert len(asked) == 1 + GUESSES_MAX
    found.record(B, asked, ReachReply((), FROM_OUTSIDE), 1.0)
    assert PUBLIC in found.to_ask(B, (), 1.0, most=20)
    assert len(found.to_ask(C, (), 1.0, most=20)) == 1 + GUESSES_MAX
