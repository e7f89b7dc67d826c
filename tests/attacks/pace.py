"""How often an attack is repeated.

Knows time only.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import count

PAUSE_SECONDS = 0.05
"""Between two messages of an attack that needs only one."""


async def rounds(until: float, pause: float = PAUSE_SECONDS) -> AsyncIterator[int]:
    """0, and further numbers while there is time."""
    for number in count():
        yield number
        await asyncio.sleep(pause)
        if time.monotonic() >= until:
            return
