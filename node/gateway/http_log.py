"""What aiohttp has to say about requests that it cannot read, without what was in them.

Knows aiohttp's errors; must not know any endpoint. A header that is damaged may be the one that
holds a key, and aiohttp would quote it.
"""

import logging
from typing import TYPE_CHECKING

from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class HttpLog(_Adapter):
    """Stands in for the logger of `aiohttp.web`."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger(__name__), {})

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        """Pass on what is no quotation."""
        error = kwargs.get("exc_info")
        if isinstance(error, HttpProcessingError):
            self.logger.info("a client sent what is no HTTP request: %s", type(error).__name__)
            return
        super().log(level, msg, *args, **kwargs)  # type: ignore[arg-type]
