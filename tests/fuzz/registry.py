"""All fuzz targets by name, and which of them share a child process in the short run.

Knows names only: a target's module is imported when the target is made, so that a run of the wire's
parsers does not wait for torch.
"""

from collections.abc import Mapping

from tests.fuzz.target import Maker
from tests.fuzz.wire_targets import WIRE_TARGETS

TARGETS: Mapping[str, Maker] = {**WIRE_TARGETS}
GROUPS: Mapping[str, tuple[str, ...]] = {"wire": tuple(WIRE_TARGETS)}
"""Targets with the same imports."""
