"""Durations and sizes as people write them."""

import pytest

from node.quantities import format_duration, format_size, parse_duration, parse_size
from protocols.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300.0), ("1.5h", 5400.0), ("250ms", 0.25), ("30", 30.0), ("2 d", 172800.0), (7, 7.0)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2**31), ("500MB", 500_000_000), ("1.5 kib", 1536), ("12", 12), (12, 12)],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "5 weeks", "-5m", "5M", True, None, [], "5m5s", -1])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "2 pounds", "-1GiB", False, "GiB"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ConfigError):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (92_871_040, "92.9 MB"), (2**31, "2.1 GB"), (5e12, "5.0 TB")],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250 ms"), (12, "12 s"), (300, "5 min"), (11_520, "3 h 12 min"), (187_200, "2 d 4 h")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
