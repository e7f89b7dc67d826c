"""`python -m node` and the `dslm` command.

Knows where the command line starts; nothing else.
"""

import sys

from node.cli import app


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(app.main())


if __name__ == "__main__":
    main()
