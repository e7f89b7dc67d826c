"""Asking the gate: what goes wrong there means no."""

import asyncio
import logging

import pytest

from protocols import access, admission, allowances, versions
from protocols.adapters.virtual import run_virtual
from protocols.errors import NotAdmitted, PeerUnreachable
from protocols.ids import PeerId
from protocols.ports import Allowance, Transport

PEER = PeerId("somebody")


class OddGate:
    """Answers what it is told to; raises what it is told to."""

    def __init__(self, answer: object = None, error: BaseException | None = None) -> None:
        self.answer = answer
        self.error = error

    def _do(self) -> object:
        if self.error is not None:
            raise self.error
        return self.answer

    async def attach(self, transport: Transport) -> None:
        raise NotImplementedError

    def admits(self, _peer: PeerId, _protocol: str) -> bool:
        return self._do()  # type: ignore[return-value]

    def allowance(self, _peer: PeerId) -> Allowance:
        return self._do()  # type: ignore[return-value]

    async def greet(self, _peer: PeerId, _protocol: str) -> None:
        if self.answer == "never":
            await asyncio.Event().wait()
        self._do()

    def forget(self, _peer: PeerId) -> None:
        self._do()


@pytest.mark.parametrize("answer", [False, None, 1, "yes", []])
def test_anything_but_true_is_no(answer: object) -> None:
    assert not admission.is_admitted(OddGate(answer), PEER, versions.ASK)


def test_true_is_yes_and_so_is_no_gate() -> None:
    assert admission.is_admitted(OddGate(True), PEER, versions.ASK)
    assert admission.is_admitted(None, PEER, versions.ASK)


@pytest.mark.parametrize("protocol", sorted(access.OPEN))
def test_open_protocols_are_not_asked_for(protocol: str) -> None:
    assert admission.is_admitted(OddGate(False), PEER, protocol)
    run_virtual(admission.greet(OddGate(error=LookupError("x")), PEER, protocol))


@pytest.mark.parametrize("error", [LookupError("secret"), RecursionError(), NotAdmitted("no")])
def test_a_defect_is_no_and_is_told_without_its_text(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    gate = OddGate(error=error)
    assert not admission.is_admitted(gate, PEER, versions.ASK)
    assert admission.allowance_of(gate, PEER) == allowances.NOBODY
    with pytest.raises(NotAdmitted):
        run_virtual(admission.greet(gate, PEER, versions.ASK))
    assert type(error).__name__ in caplog.text
    assert "secret" not in caplog.text


def test_a_greeting_that_never_ends_is_given_up() -> None:
    with pytest.raises(PeerUnreachable):
        run_virtual(admission.greet(OddGate("never"), PEER, versions.ASK), limit_seconds=60)


def test_cancelling_is_not_mistaken_for_a_defect() -> None:
    gate = OddGate(error=asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        run_virtual(admission.greet(gate, PEER, versions.ASK))
