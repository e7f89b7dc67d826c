"""A real gateway on a free loopback port with a fake outside, for tests and demonstrations.

Knows the fakes; must not be used by the daemon.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from node.gateway.access import Access
from node.gateway.admin_token import AdminToken
from node.gateway.config import GatewayConfig
from node.gateway.fake import FixedView, Script, ScriptedAnswers, peer_state, specialist_state
from node.gateway.keys import Keys, NoKeys
from node.gateway.server import Gateway
from protocols.ids import peer_id_from_public_key

ALICE, BOB, CAROL = (peer_id_from_public_key(bytes([number]) * 32) for number in (1, 2, 3))
"""Three peers; the trial's own node is Alice's."""

BASE = "smollm2-135m"
SPECIALIST = "lab/math-135m"

STARTED_AT = 1_700_000_000.0
"""Unix seconds at which trials take place."""


class TrialClock:
    """A wall clock that stands still, and the event loop's own time."""

    def now(self) -> float:
        """Always `STARTED_AT`."""
        return STARTED_AT

    def monotonic(self) -> float:
        """The event loop's time in seconds."""
        return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class Trial:
    """A running gateway and what is behind it."""

    gateway: Gateway
    source: ScriptedAnswers
    view: FixedView


def swarm_view() -> FixedView:
    """Three peers that host a base; two of them also a specialist with a slash in its id."""
    return FixedView(
        (
            peer_state(ALICE, "alice", is_self=True),
            peer_state(BOB, "bob-3090"),
            peer_state(CAROL, "carol"),
        ),
        (
            specialist_state(BASE, ALICE, BOB, CAROL),
            specialist_state(SPECIALIST, BOB, CAROL, is_base=False),
        ),
    )


ADMIN_TOKEN = "the-trial-owners-token"  # noqa: S105  (of trials only)
OWNER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
"""Headers of the trial node's owner."""


@dataclass(frozen=True, slots=True)
class TrialKeys:
    """Keys that are set, by secret."""

    by_secret: Mapping[str, str]

    def names(self) -> tuple[str, ...]:
        """Of all keys."""
        return tuple(self.by_secret.values())

    def check(self, secret: str) -> str | None:
        """The name of the key `secret`."""
        return self.by_secret.get(secret)


TRIAL_CONFIG = GatewayConfig(port=0, drain=0.05)
"""A free port, and a short drain; `dataclasses.replace` makes others of it."""


@asynccontextmanager
async def open_trial(
    script: Script,
    view: FixedView | None = None,
    config: GatewayConfig = TRIAL_CONFIG,
    keys: Keys | None = None,
) -> AsyncIterator[Trial]:
    """A gateway that answers with `script`, stopped on leaving."""
    source, known = ScriptedAnswers(script), view or swarm_view()
    gateway = Gateway(
        source,
        known,
        config,
        clock=TrialClock(),
        rng=random.Random(7),  # noqa: S311  (a trial repeats itself)
        access=Access(keys or NoKeys(), AdminToken(ADMIN_TOKEN)),
    )
    await gateway.start()
    try:
        yield Trial(gateway, source, known)
    finally:
        await gateway.stop()
