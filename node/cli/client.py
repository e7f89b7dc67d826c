"""The node's HTTP API as its own commands use it: JSON in and out, and event streams.

Knows HTTP and error bodies; must not know what the endpoints mean. `http.client` is used because
it loads in 30 ms, a tenth of the time of the larger libraries.
"""

import http.client
import urllib.parse
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec
from msgspec import Struct

from protocols.errors import DeadlineExceeded, DslmError, NetworkError, NotRunning, UserError

T = TypeVar("T")

CONNECT_AND_READ_SECONDS = 60.0
"""A stream sends something at least every 10 s; a join reports within half a minute."""
_LINE_BYTES_MAX = 1 << 20


class ErrorDetail(Struct, frozen=True):
    """The part of an error body that is for people."""

    message: str = "no reason was given"
    code: str | None = None


class ErrorBody(Struct, frozen=True):
    """What every refused request and broken stream carries."""

    error: ErrorDetail = ErrorDetail()


class ApiError(DslmError):
    """The node understood and refused, or failed. `api_code` is that of the error body."""

    code = "api_error"

    def __init__(self, detail: ErrorDetail) -> None:
        super().__init__(detail.message)
        self.api_code = detail.code or self.code


class Client:
    """Talks to one node. Every call opens a connection of its own."""

    def __init__(
        self, url: str, timeout: float = CONNECT_AND_READ_SECONDS, secret: str = ""
    ) -> None:
        """`url` as in `http://127.0.0.1:7777`; `timeout` in seconds for each read. `secret` is the
        running node's own token or an API key, and goes to that address with every request."""
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        try:
            self._host, self._port = parts.hostname or "", parts.port or 80
        except ValueError as error:
            raise UserError(f"{url!r} is no address: {error}") from error
        if parts.scheme != "http" or not self._host:
            raise UserError(f"{url!r} is no address of a node: use http://HOST:PORT")
        self.url = f"http://{parts.netloc}"
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def get(self, path: str, kind: type[T]) -> T:
        """The JSON at `path` as `kind`.

        Raises `NotRunning`, `ApiError`, `DeadlineExceeded` or `NetworkError`.
        """
        with self._exchange("GET", path, b"") as response:
            return self._decoded(response.read(), kind)

    def post(self, path: str, body: object, kind: type[T]) -> T:
        """The answer to `body`, sent as JSON; errors as of `get`."""
        with self._exchange("POST", path, msgspec.json.encode(body)) as response:
            return self._decoded(response.read(), kind)

    def lines(self, path: str, body: object) -> Generator[str, None, None]:
        """The lines of the answer to `body` as they come; errors as of `get`.

        Closing the iterator closes the connection, which makes the node end the work.
        """
        with self._exchange("POST", path, msgspec.json.encode(body)) as response:
            while line := response.readline(_LINE_BYTES_MAX):
                yield line.decode("utf-8", errors="replace").rstrip("\r\n")

    def objects(self, path: str, body: object, kind: type[T]) -> Generator[T, None, None]:
        """Each line of the answer to `body` as `kind`; errors as of `get`.

        `ApiError` if a line is an error body: the node broke off.
        """
        for line in self.lines(path, body):
            if line.startswith('{"error":'):
                raise ApiError(msgspec.json.decode(line, type=ErrorBody).error)
            yield self._decoded(line.encode(), kind)

    def is_answering(self, path: str) -> bool:
        """Whether `path` can be got now."""
        try:
            with self._exchange("GET", path, b"") as response:
                response.read()
        except DslmError:
            return False
        return True

    @contextmanager
    def _exchange(self, method: str, path: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError(_detail(response.status, response.read()))
            yield response
        except ConnectionRefusedError as error:
            raise NotRunning(
                f"no node answers at {self.url}. Start one with `dslm up`, or say where it is "
                "with --url"
            ) from error
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the node at {self.url} did not answer within {self._timeout:g} s; "
                "`dslm logs` may tell why"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise NetworkError(
                f"the connection to the node at {self.url} broke: {reason}"
            ) from error
        finally:
            connection.close()

    def _decoded(self, data: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"what answers at {self.url} is no node of this version ({error}). If you have "
                "upgraded, run `dslm down` and `dslm up`"
            ) from error


def _detail(status: int, data: bytes) -> ErrorDetail:
    try:
        return msgspec.json.decode(data, type=ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ErrorDetail(f"HTTP status {status} from something that is no node of dslm")
