"""The gateway's settings.

Knows names, units and defaults; must not know where the values come from (`node.config` does).
"""

import ipaddress
from dataclasses import dataclass

from coordinator.answer import Route


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where to listen, and the bounds of one request. Times are in seconds, sizes in bytes.

    `port` 0 lets the system choose; `Gateway.url` tells which.
    """

    host: str = "127.0.0.1"
    port: int = 7777
    require_key: bool = False
    """Demand a key even where nobody else can connect."""
    hosts: tuple[str, ...] = ()
    """Names, besides addresses, by which others may call this node."""
    route: Route = Route.ANY
    """Who may read a prompt whose request does not say."""
    body_bytes_max: int = 2 * 1024 * 1024
    """A prompt of the largest size, every character of it escaped, fits."""
    heartbeat: float = 10.0
    """A stream that is silent for so long gets a `: ping`."""
    hold: float = 2.0
    """A stream's status is held back for so long, so that an early failure has a status."""
    answer_budget: float = 600.0
    """The most time one whole answer may take; a request can ask for less."""
    temperature: float = 0.2
    """For requests that name none. OpenAI's default of 1 makes small models ramble."""
    drain: float = 8.0
    """How long `Gateway.stop` lets running answers go on."""

    @property
    def needs_key(self) -> bool:
        """Whether somebody beyond this machine may call, or its owner wants keys anyway."""
        return bool(self.why_keys)

    @property
    def why_keys(self) -> str:
        """What makes keys necessary, as a clause for people; empty if nothing does.

        A name of its own means that a proxy passes on what others ask.
        """
        if self.require_key:
            return "api.require_key is set"
        if self.hosts:
            return "api.hosts lets others call this node"
        if not listens_on_loopback(self.host):
            return f"api.listen is {self.host}, which others can reach"
        return ""


def listens_on_loopback(host: str) -> bool:
    """Whether only this machine can connect to a server on `host`; False where in doubt."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
