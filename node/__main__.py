"""`python -m node` and the `dslm` command.

Knows where the command line starts; nothing else.
"""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from node.cli.app import main as run_command

    sys.exit(run_command())


if __name__ == "__main__":
    main()
