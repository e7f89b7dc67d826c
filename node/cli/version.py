"""`dslm version`: what this is and what it speaks.

Knows version strings only.
"""

import platform

from node.cli.output import show, show_json
from node.cli.verb import Invocation, verb
from node.state import SCHEMA_VERSION
from protocols import versions

EPILOG = """\b
Examples:
  dslm version
  dslm version --json
"""


@verb
def version(invocation: Invocation) -> None:
    """Print the version of dslm and of the protocols it speaks."""
    if invocation.json:
        show_json(
            {
                "schema_version": SCHEMA_VERSION,
                "version": versions.SOFTWARE,
                "protocols": versions.ALL,
                "python": platform.python_version(),
            }
        )
        return
    show(f"dslm {versions.SOFTWARE} ({' '.join(versions.ALL)}), Python {platform.python_version()}")
