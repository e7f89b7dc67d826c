"""What a node tells about itself to the person who runs it, as the JSON shapes of `/api/v1`.

Knows shapes only, so that the CLI can read them without importing the daemon. Times are seconds
unless a name says otherwise, sizes are bytes.
"""

from typing import Protocol

from msgspec import Struct

SCHEMA_VERSION = 1


class DeviceState(Struct, frozen=True):
    """The hardware that the engine uses. `kind` is `cpu` or `cuda`."""

    kind: str
    name: str
    threads: int
    memory_total: int
    memory_free: int


class HostedState(Struct, frozen=True):
    """A model that this node holds in memory."""

    id: str
    model_digest: str
    precision: str
    context_length: int
    parameters: int
    size: int
    domains: tuple[str, ...]
    running: int
    waiting: int
    slots: int


class NodeState(Struct, frozen=True):
    """`GET /api/v1/state`."""

    schema_version: int
    software: str
    peer: str
    name: str
    swarm: str
    pid: int
    uptime: float
    api_url: str
    addresses: tuple[str, ...]
    network: str
    """`up`, or what is wrong."""
    draining: bool
    device: DeviceState
    hosted: tuple[HostedState, ...]
    known_peers: int
    known_specialists: int
    served_requests: int
    served_tokens: int
    encoder: str
    """Digest of the sentence encoder, or empty: then `auto` always means the plain base."""


class PeerState(Struct, frozen=True):
    """One row of `GET /api/v1/peers`. Unmeasured numbers are null."""

    peer: str
    name: str
    is_self: bool
    state: str
    """`ok`, `failing` or `unmeasured`."""
    software: str
    specialists: tuple[str, ...]
    addresses: tuple[str, ...]
    rtt_ms: float | None
    first_token_ms: float | None
    tokens_per_second: float | None
    expires_in: float
    last_error: str


class PeersState(Struct, frozen=True):
    """`GET /api/v1/peers`."""

    schema_version: int
    peers: tuple[PeerState, ...]


class SpecialistState(Struct, frozen=True):
    """One row of `GET /api/v1/models`: a specialist and the peers that host it."""

    id: str
    description: str
    domains: tuple[str, ...]
    base: str
    is_base: bool
    precisions: tuple[str, ...]
    context_length: int
    parameters: int
    licence: str
    peers: tuple[str, ...]
    is_local: bool


class SpecialistsState(Struct, frozen=True):
    """`GET /api/v1/models`."""

    schema_version: int
    models: tuple[SpecialistState, ...]


class Check(Struct, frozen=True):
    """One step of a join or of the doctor, with what was found and, if it failed, what to do."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class JoinReport(Struct, frozen=True):
    """`POST /api/v1/join {"address": ...}`."""

    schema_version: int
    joined: bool
    peer: str
    checks: tuple[Check, ...]


class PingReport(Struct, frozen=True):
    """`POST /api/v1/ping {"peer": ..., "count": n}`: round trips in milliseconds."""

    schema_version: int
    peer: str
    name: str
    software: str
    samples_ms: tuple[float, ...]


class NodeView(Protocol):
    """What the gateway's admin routes need from the running node."""

    def state(self) -> NodeState:
        """Now."""
        ...

    def peers(self) -> PeersState:
        """The directory's peers, this one included, with our own measurements."""
        ...

    def specialists(self) -> SpecialistsState:
        """From local knowledge; never waits for the network."""
        ...

    async def join(self, address: str) -> JoinReport:
        """Dial a swarm member and find the others through it."""
        ...

    async def ping(self, peer: str, count: int) -> PingReport:
        """Measure round trips to a peer id, a unique prefix of one, or a node name."""
        ...

    def metrics(self) -> str:
        """Prometheus text format."""
        ...
