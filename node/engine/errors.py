"""How an engine fails and what it refuses, apart from what `protocols.errors` names.

Knows errors; needs no torch, so that services can catch it.
"""

from protocols.errors import DslmError, NotHere


class EngineFailed(DslmError):
    """The engine cannot go on, or was stopped. The text says what happened."""

    code = "engine_failed"
    retry = True


class UnknownAdapter(NotHere):
    """A request names an adapter that is not loaded, or not any more."""
