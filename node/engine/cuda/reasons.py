"""Why a model is not computed by the fused step.

Knows words only.
"""


class CudaUnfit(Exception):
    """The reason, as it follows "computed by torch because": no full stop, no capital."""
