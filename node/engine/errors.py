"""The failure of an engine, apart from the refusals that `protocols.errors` names.

Knows one error; needs no torch, so that services can catch it.
"""

from protocols.errors import DslmError


class EngineFailed(DslmError):
    """The engine cannot go on, or was stopped. The text says what happened."""

    code = "engine_failed"
    retry = True
