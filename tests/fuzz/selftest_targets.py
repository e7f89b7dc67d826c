"""Parsers that are broken on purpose, to see that the fuzzer notices.

Knows the ways in which parsers break; each does so for inputs that begin with a large byte.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from protocols.errors import ProtocolError
from tests.fuzz.target import Maker, Target


def _broken(breaks: Callable[[], object]) -> Maker:
    def make(folder: Path) -> Target:  # noqa: ARG001
        def run(data: bytes) -> None:
            if data[:1] > b"\x80":
                breaks()
            if data[:1] < b"\x20":
                raise ProtocolError("small")

        return Target(run, (ProtocolError,), (b"a good input",), "raw")

    return make


def _burn() -> None:
    until = time.thread_time() + 0.08
    while time.thread_time() < until:
        pass


MAKERS: Mapping[str, Maker] = {
    "selftest_raises": _broken(lambda: dict[str, int]()["no such key"]),
    "selftest_slow": _broken(_burn),
    "selftest_dies": _broken(lambda: os.kill(os.getpid(), signal.SIGSEGV)),
    "selftest_eats": _broken(lambda: bytearray(1 << 34)),
    "selftest_good": _broken(lambda: None),
}
