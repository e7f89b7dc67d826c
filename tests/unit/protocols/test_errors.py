"""The error tree: every leaf has a code of its own and says whose fault it is."""

from protocols import errors
from protocols.errors import Busy, DslmError, Fault, NoCapacity, TooLong, UnknownModel


def _all_errors() -> list[type[DslmError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, DslmError)
    ]


def test_codes_are_unique_and_faults_are_named() -> None:
    codes = [error.code for error in _all_errors()]
    assert len(codes) == len(set(codes)) >= 20
    assert all(isinstance(error.fault, Fault) for error in _all_errors())


def test_what_the_caller_did_wrong_is_not_tried_again() -> None:
    assert not any(error.retry for error in _all_errors() if error.fault is Fault.CALLER)


def test_errors_carry_what_a_client_needs() -> None:
    assert Busy("full", 2.5).retry_after == 2.5
    assert NoCapacity("nobody").retry_after > 0
    assert (TooLong(10, 12).limit, TooLong(10, 12).requested) == (10, 12)
    assert "10 tokens" in str(TooLong(10, 12))
    assert "law, lawn" in str(UnknownModel("lwa", ("law", "lawn")))
    assert "dslm ls" in str(UnknownModel("lwa"))
