"""Durations and sizes as people write them, `5m` and `2GiB`, and back.

Knows units only; must not know which setting a value belongs to.
"""

import math
import re

from node.state import DeviceState
from protocols.errors import ConfigError

_MOST = 2**63
_NUMBER_AND_UNIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def parse_duration(value: object) -> float:
    """Seconds in `5m`, `1.5h`, `250ms`, `30` (seconds) or a bare number."""
    number, unit = _split(value, "a duration like 30s, 5m or 1.5h")
    if unit not in _SECONDS:
        raise ConfigError(f"{value!r} is no duration: use ms, s, m, h or d, as in 5m")
    seconds = number * _SECONDS[unit]
    if not math.isfinite(seconds):
        raise ConfigError(f"{str(value)[:40]!r} is no duration: it is too long")
    return seconds


def parse_size(value: object) -> int:
    """Bytes in `2GiB` (powers of 1024), `500MB` (powers of 1000) or a bare number."""
    number, unit = _split(value, "a size like 500MB or 2GiB")
    if unit.lower() not in _BYTES:
        raise ConfigError(f"{value!r} is no size: use kB, MB, GB or KiB, MiB, GiB, as in 2GiB")
    size = number * _BYTES[unit.lower()]
    if not math.isfinite(size):
        raise ConfigError(f"{str(value)[:40]!r} is no size: it is too large")
    return int(size)


def format_size(size: float) -> str:
    """Bytes for people: `92.9 MB`. Powers of 1000, at most one digit after the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_count(count: float) -> str:
    """A number of things for people: `950`, `12.0 k`, `139.2 M`, `1.5 G`."""
    for unit in ("", " k", " M"):
        if count < 1000:
            return f"{count:.1f}{unit}" if unit else f"{count:.0f}"
        count /= 1000
    return f"{count:.1f} G"


def format_duration(seconds: float) -> str:
    """Seconds for people: `250 ms`, `12 s`, `5 min`, `3 h 12 min`, `2 d 4 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours == 0:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def _split(value: object, wanted: str) -> tuple[float, str]:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MOST:
        return float(value), ""
    match = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigError(f"{value!r} is not {wanted}")
    return float(match[1]), match[2]


def format_device(device: DeviceState) -> str:
    """The hardware that models run on, and what of its memory is free."""
    kind = "CPU" if device.kind == "cpu" else f"GPU ({device.kind})"
    return (
        f"{kind}, {device.name}, {device.threads} threads, "
        f"{format_size(device.memory_free)} of {format_size(device.memory_total)} memory free"
    )
