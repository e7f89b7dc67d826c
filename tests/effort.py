"""How hard random tests try: a share by default, so that the suite stays quick; all in `.ci/run`.

`DSLM_THOROUGH=1` asks for all.
"""

import os

THOROUGH = bool(os.environ.get("DSLM_THOROUGH"))
_SHARE = 10


def examples(full: int) -> int:
    """The number of random examples to try where a thorough run tries `full`."""
    return full if THOROUGH else max(1, full // _SHARE)
