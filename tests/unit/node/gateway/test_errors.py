"""Every error of the tree as HTTP tells it."""

import pytest

from node.gateway.errors import (
    BadRequest,
    Draining,
    Forbidden,
    InvalidKey,
    SourceFailed,
    UnknownSwarm,
    failure_of,
)
from protocols import errors
from protocols.errors import DslmError, Fault

CASES: list[tuple[DslmError, int, str, str]] = [
    (errors.TooLong(8192, 9000), 400, "invalid_request_error", "context_length_exceeded"),
    (errors.Unsupported("no"), 400, "invalid_request_error", "unsupported_parameter"),
    (BadRequest("no", "stop"), 400, "invalid_request_error", "invalid_value"),
    (errors.UserError("no"), 400, "invalid_request_error", "user_error"),
    (InvalidKey("who?"), 401, "authentication_error", "invalid_api_key"),
    (Forbidden("no"), 403, "permission_error", "forbidden"),
    (errors.NotAdmitted("no"), 403, "permission_error", "swarm_forbidden"),
    (UnknownSwarm("which?"), 404, "invalid_request_error", "swarm_not_found"),
    (errors.UnknownModel("x"), 404, "invalid_request_error", "model_not_found"),
    (errors.UnknownPeer("who"), 404, "invalid_request_error", "peer_not_found"),
    (errors.Busy("full", 3.2), 429, "rate_limit_error", "queue_full"),
    (errors.NoCapacity("nobody", 0.2), 503, "server_error", "no_capacity"),
    (Draining(), 503, "server_error", "draining"),
    (errors.NotHere("gone"), 503, "server_error", "not_here"),
    (errors.Refused("no"), 503, "server_error", "refused"),
    (errors.PeerLost("gone"), 503, "server_error", "peer_lost"),
    (errors.PeerUnreachable("gone"), 503, "server_error", "peer_unreachable"),
    (errors.TransportDown("down"), 503, "server_error", "transport_down"),
    (errors.NetworkError("odd"), 503, "server_error", "network_error"),
    (errors.ProtocolError("rubbish"), 503, "server_error", "protocol_error"),
    (errors.VersionError("1 is not 2"), 503, "server_error", "version_mismatch"),
    (errors.DeadlineExceeded("late"), 504, "server_error", "timeout"),
    (errors.DslmError("odd"), 500, "server_error", "internal_error"),
    (SourceFailed("odd"), 500, "server_error", "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "kind", "code"), CASES)
def test_status_type_and_code(error: DslmError, status: int, kind: str, code: str) -> None:
    failure = failure_of(error)
    assert (failure.status, failure.body.error.type, failure.body.error.code) == (
        status,
        kind,
        code,
    )
    assert failure.body.error.message == str(error)


@pytest.mark.parametrize(("error", "status", "kind", "code"), CASES)
def test_headers_say_whether_and_when_to_retry(
    error: DslmError, status: int, kind: str, code: str
) -> None:
    del kind, code
    headers = failure_of(error).headers
    assert ("Retry-After" in headers) == (status in (429, 503))
    assert headers.get("WWW-Authenticate", "").startswith("Bearer") == (status == 401)
    assert (headers.get("x-should-retry") == "false") == (status >= 500 and not error.retry)


def test_retry_after_is_in_whole_seconds_that_clients_honour() -> None:
    assert failure_of(errors.Busy("full", 3.2)).headers["Retry-After"] == "4"
    assert failure_of(errors.Busy("full", 0)).headers["Retry-After"] == "1"
    assert failure_of(errors.NoCapacity("nobody", 9_999)).headers["Retry-After"] == "120"


def test_the_parameter_is_named() -> None:
    assert failure_of(BadRequest("no", "stop[1]")).body.error.param == "stop[1]"
    assert failure_of(errors.UnknownModel("x")).body.error.param == "model"
    assert failure_of(errors.TooLong(1, 2)).body.error.param == "messages"
    assert failure_of(errors.TooLong(1, 2), "prompt").body.error.param == "prompt"
    assert failure_of(errors.Busy("full")).body.error.param is None


def test_overflow_reads_as_clients_look_for_it() -> None:
    message = failure_of(errors.TooLong(8192, 9000)).body.error.message
    assert message.startswith("This model's maximum context length is 8192 tokens. However, ")


def test_no_status_makes_the_openai_client_repeat_what_cannot_succeed() -> None:
    """It repeats 408, 409, 429 and 5xx, unless told otherwise."""
    for error, *_ in CASES:
        failure = failure_of(error)
        assert failure.status not in (408, 409, 422)
        if error.fault is Fault.CALLER:
            assert failure.status < 500


def test_every_error_of_the_tree_has_a_case() -> None:
    kinds = {type(error) for error, *_ in CASES}
    covered_by_parent = (errors.UserError, errors.RecordError)
    todo = [DslmError]
    while todo:
        kind = todo.pop()
        if kind.__module__ == errors.__name__:
            todo += kind.__subclasses__()
            assert kind in kinds or issubclass(kind, covered_by_parent), kind
