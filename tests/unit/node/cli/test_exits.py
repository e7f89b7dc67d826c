"""Each kind of failure has its exit code."""

import pytest

from node.cli.client import ApiError, ErrorDetail
from node.cli.exits import Exit, UsageError, exit_of
from protocols.errors import (
    AddressInUse,
    Busy,
    ConfigError,
    DeadlineExceeded,
    DslmError,
    ModelFileError,
    NoCapacity,
    NotRunning,
    PeerUnreachable,
    UnknownModel,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 1),
        (ModelFileError("x"), 1),
        (AddressInUse("x"), 1),
        (UsageError("x"), 2),
        (NotRunning("x"), 3),
        (UnknownModel("x"), 4),
        (NoCapacity("x"), 5),
        (PeerUnreachable("x"), 5),
        (DeadlineExceeded("x"), 7),
    ],
)
def test_own_errors(error: DslmError, code: int) -> None:
    assert exit_of(error) == code


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("model_not_found", Exit.UNKNOWN),
        ("peer_not_found", Exit.UNKNOWN),
        ("no_capacity", Exit.NO_CAPACITY),
        ("queue_full", Exit.NO_CAPACITY),
        ("peer_unreachable", Exit.NO_CAPACITY),
        ("forbidden", Exit.REFUSED),
        ("timeout", Exit.TIMED_OUT),
        ("context_length_exceeded", Exit.FAILED),
        ("internal_error", Exit.FAILED),
        (None, Exit.FAILED),
    ],
)
def test_errors_of_the_api(code: str | None, expected: Exit) -> None:
    assert exit_of(ApiError(ErrorDetail("x", code))) is expected


def test_the_codes_that_scripts_rely_on() -> None:
    assert [int(one) for one in Exit] == [0, 1, 2, 3, 4, 5, 6, 7, 130]
    assert exit_of(Busy("x")) is Exit.FAILED
