"""Every failure as OpenAI's error body with the right status and headers, in one middleware.

Knows the whole error tree and HTTP's statuses; must not know any endpoint.
"""

import logging
import math
from dataclasses import dataclass, field
from typing import ClassVar

from aiohttp import ClientPayloadError, web
from msgspec import Struct

from node.gateway import wire
from protocols.defects import describe
from protocols.errors import (
    Busy,
    DeadlineExceeded,
    DslmError,
    Fault,
    NetworkError,
    NoCapacity,
    NotAdmitted,
    ProtocolError,
    Refused,
    TooLong,
    UnknownModel,
    UnknownPeer,
    Unsupported,
    UserError,
)

_log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS_MAX = 120
"""The openai client ignores a longer one."""


class BadRequest(DslmError):
    """A request that cannot be understood or carried out as written. `parameter` names the part."""

    code = "invalid_value"
    fault = Fault.CALLER

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class UnsupportedParameter(BadRequest):
    """A field of OpenAI's API that dslm cannot honour and will not silently drop."""

    code = "unsupported_parameter"


class PromptTooLong(BadRequest):
    """A prompt beyond what any peer takes, whatever its model's context."""

    code = "context_length_exceeded"


class Forbidden(DslmError):
    """A request from a place that may not make it."""

    code = "forbidden"
    fault = Fault.CALLER


class InvalidKey(DslmError):
    """No API key where one is needed, or none that is valid. Its text never holds the key."""

    code = "invalid_api_key"
    fault = Fault.CALLER


class UnknownSwarm(DslmError):
    """A swarm that this node is not in."""

    code = "swarm_not_found"
    fault = Fault.CALLER


class Draining(NoCapacity):
    """This node is on its way down."""

    code = "draining"

    def __init__(self) -> None:
        super().__init__("This node is shutting down. Try another one, or this one again soon.", 5)


class SourceFailed(DslmError):
    """The answer's source broke: a defect of ours, whose details only the log has."""

    code = "internal_error"


class ErrorDetail(Struct, frozen=True):
    """What the openai client shows to its user."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Struct, frozen=True):
    """OpenAI's only shape for errors."""

    error: ErrorDetail


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as HTTP tells it."""

    status: int
    body: ErrorBody
    headers: dict[str, str] = field(default_factory=dict)

    TYPES: ClassVar[dict[int, str]] = {
        401: "authentication_error",
        403: "permission_error",
        429: "rate_limit_error",
    }

    @classmethod
    def of(cls, status: int, message: str, code: str, param: str | None = None) -> "Failure":
        """A failure whose type follows from its status."""
        default = "server_error" if status >= 500 else "invalid_request_error"
        kind = cls.TYPES.get(status, default)
        return cls(status, ErrorBody(ErrorDetail(message, kind, param, code)))

    def response(self) -> web.Response:
        """The whole response for a request that has none yet."""
        return web.Response(
            status=self.status,
            body=wire.encode(self.body),
            content_type="application/json",
            headers=self.headers,
        )


_STATUSES: tuple[tuple[type[DslmError], int], ...] = (
    (BadRequest, 400),
    (InvalidKey, 401),
    (Forbidden, 403),
    (NotAdmitted, 403),
    (UnknownSwarm, 404),
    (TooLong, 400),
    (Unsupported, 400),
    (UnknownModel, 404),
    (UnknownPeer, 404),
    (UserError, 400),
    (Busy, 429),
    (DeadlineExceeded, 504),
    (NoCapacity, 503),
    (Refused, 503),
    (NetworkError, 503),
    (ProtocolError, 503),
)
"""First match counts; what is not here is a defect of ours: 500."""

_CODES: dict[type[DslmError], str] = {
    Busy: "queue_full",
    DeadlineExceeded: "timeout",
    NotAdmitted: "swarm_forbidden",
    Unsupported: "unsupported_parameter",
    DslmError: "internal_error",
}
"""Where OpenAI's clients expect another word than ours."""

_HTTP_CODES = {404: "unknown_url", 405: "method_not_allowed", 413: "request_too_large"}


def failure_of(error: DslmError, prompt_parameter: str = "messages") -> Failure:
    """How a request that ended in `error` is answered."""
    status = next((number for kind, number in _STATUSES if isinstance(error, kind)), 500)
    failure = Failure.of(
        status, str(error), _CODES.get(type(error), error.code), _parameter(error, prompt_parameter)
    )
    if status == 401:
        failure.headers["WWW-Authenticate"] = 'Bearer realm="dslm"'
    if status in (429, 503):
        failure.headers["Retry-After"] = _retry_after(error)
    if status >= 500 and not error.retry:
        failure.headers["x-should-retry"] = "false"
    return failure


def _parameter(error: DslmError, prompt_parameter: str) -> str | None:
    match error:
        case BadRequest():
            return error.parameter
        case UnknownModel():
            return "model"
        case TooLong():
            return prompt_parameter
        case _:
            return None


def _retry_after(error: DslmError) -> str:
    seconds = error.retry_after if isinstance(error, Busy | NoCapacity) else 1.0
    return str(min(RETRY_AFTER_SECONDS_MAX, max(1, math.ceil(seconds))))


def http_failure(error: web.HTTPException, request: web.Request) -> Failure:
    """aiohttp's own refusals: no such path, wrong method, too large a body."""
    texts = {
        404: f"Unknown request URL: {request.method} {request.path}. The API is under /v1.",
        405: f"{request.path} does not take {request.method}.",
        413: "The request body is larger than this node takes.",
    }
    status = error.status
    code = _HTTP_CODES.get(status, "invalid_request" if status < 500 else "internal_error")
    failure = Failure.of(status, texts.get(status, error.reason), code)
    failure.headers.update(
        {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    )
    return failure


def unexpected_failure(request_id: str) -> Failure:
    """A defect of ours: the client learns the request's id, the log has the rest."""
    failure = Failure.of(
        500,
        f"Something broke inside this node. Its log tells more about request {request_id}.",
        SourceFailed.code,
    )
    failure.headers["x-should-retry"] = "false"
    return failure


@web.middleware
async def shape_errors(request: web.Request, handler: wire.Handler) -> web.StreamResponse:
    """Outermost middleware: no error leaves in another shape than OpenAI's."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return http_failure(error, request).response()
    except SourceFailed as error:
        _log.error(
            "request %s failed: %s", request[wire.REQUEST_ID], describe(error.__cause__ or error)
        )
        return unexpected_failure(request[wire.REQUEST_ID]).response()
    except DslmError as error:
        return failure_of(error, wire.prompt_parameter(request)).response()
    except (web.RequestPayloadError, ClientPayloadError) as error:
        return Failure.of(400, f"The request body is damaged: {error}", "invalid_value").response()
    except ConnectionError:
        raise  # The client is gone: there is nobody to tell.
    except Exception as error:  # noqa: BLE001  (a request's top: its end must have a shape)
        _log.error("request %s failed: %s", request[wire.REQUEST_ID], describe(error))
        return unexpected_failure(request[wire.REQUEST_ID]).response()
