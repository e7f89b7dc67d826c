"""A helper program that never outlives the block that needs it, whatever interrupts the block.

Knows processes and threads; uses the standard library only, since set-up needs it before anything
is installed.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO

_STOP_SECONDS = 5.0


@contextmanager
def child(
    command: Sequence[str],
    output: IO[bytes] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `command` while the block runs; what it prints goes to `output`, by default to stderr.

    When the block is left before the program has ended, it gets SIGTERM, and SIGKILL 5 s later.
    It is started in another thread, which notes it, because a Ctrl-C that comes while `Popen` or
    `submit` works in the main thread would leave a program that nobody knows of.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        process = subprocess.Popen(  # noqa: S603  (no shell)
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if output is None else output,
            stderr=subprocess.STDOUT if output is not None else None,
            env=None if variables is None else dict(variables),
        )
        started.append(process)

    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(start).result()
        yield started[0]
    finally:
        for process in started:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
