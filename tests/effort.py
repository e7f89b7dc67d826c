"""How hard random tests try: a share by default, so that the suite stays quick; all in `.ci/run`.

`DSLM_THOROUGH=1` asks for all.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

THOROUGH = bool(os.environ.get("DSLM_THOROUGH"))
_SHARE = 20

CaseT = TypeVar("CaseT")


def examples(full: int) -> int:
    """The number of random examples to try where a thorough run tries `full`."""
    return full if THOROUGH else max(1, full // _SHARE)


def few(cases: Sequence[CaseT], count: int) -> list[CaseT]:
    """`count` of the cases, spread evenly over them and with both ends; all in a thorough run."""
    if THOROUGH or len(cases) <= count:
        return list(cases)
    return [cases[round(at * (len(cases) - 1) / (count - 1))] for at in range(count)]
