"""Words about an exception that is our own mistake: what and where, and nothing of what it says.

Knows tracebacks; must not know messages, for an exception's text may hold part of a prompt.
"""

import traceback
from pathlib import PurePath

_FRAMES = 3


def describe(error: BaseException) -> str:
    """Type and innermost places, such as `KeyError at ask.py:120 in run < pump.py:31 in serve`."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = [f"{PurePath(f.filename).name}:{f.lineno} in {f.name}" for f in reversed(frames)]
    return f"{type(error).__name__} at {' < '.join(places) or 'an unknown place'}"
