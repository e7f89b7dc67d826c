"""How a node writes its log: lines for people, or JSON for machines, on stderr.

Knows logging's formats; must not know what is logged.
"""

import datetime as dt
import logging
import sys

import msgspec
from msgspec import Struct

from node.config import LogConfig


class _Line(Struct, frozen=True, omit_defaults=True):
    time: str
    level: str
    logger: str
    message: str
    trace: str = ""


class JsonFormatter(logging.Formatter):
    """One JSON object for each record, the time in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat()
        line = _Line(time, record.levelname.lower(), record.name, record.getMessage(), trace)
        return msgspec.json.encode(line).decode()


def set_up_logging(config: LogConfig) -> None:
    """Send all records from `config.level` on to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if config.json else text)
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)
