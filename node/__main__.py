"""`python -m node` and the `dslm` command.

Knows where the command line starts and how signals reach it; nothing else.
"""

import signal
import sys
from types import FrameType

from node.cli import app


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, _end)
    sys.exit(app.main())


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (a signal handler)
    """Leave through `finally` blocks, so that what this command started ends too."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
