"""Why something is not computed natively.

Knows words only.
"""


class NativeUnfit(Exception):
    """The reason, as it follows "computed by torch because": no full stop, no capital."""
