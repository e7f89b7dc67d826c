"""What a node tells about itself to the person who runs it, as the JSON shapes of `/api/v1`.

Knows shapes only, so that the CLI can read them without importing the daemon. Times are seconds
unless a name says otherwise, sizes are bytes.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from msgspec import Struct

from node.adapter_state import AdapterOrder, AdaptersState
from node.work_state import StatsState

SCHEMA_VERSION = 1


class DeviceState(Struct, frozen=True):
    """The hardware that the engine uses. `kind` is `cpu`, `cuda` or `mps`."""

    kind: str
    name: str
    threads: int
    memory_total: int
    memory_free: int


class HostedState(Struct, frozen=True):
    """A model that this node holds in memory. `size` is in bytes, room for answers included."""

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
    weights: int = 0
    """The part of `size` that is weights; the rest is room for keys and values."""
    kernels: str = ""
    """Who computes it, in words: compiled code with which instructions, or torch and why."""
    kernels_file: str = ""
    """Where the compiled code is, if there is some."""
    copy: str = ""
    """Names the base model in memory: specialists that are adapters on one base share it."""
    own: int = 0
    """The part of `size` that is not the base's."""


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
    drafted_tokens: int = 0
    """Tokens that the models guessed and computed ahead of their turn."""
    accepted_tokens: int = 0
    """Those of them that were right: so many steps were saved."""


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


class CardState(Struct, frozen=True):
    """One row of `GET /api/v1/cards`: a card as it was published, and what this node thinks of it.

    `trust` (0 to 1) and `agreement` (how well its own texts bear its prototypes out, a cosine) are
    told to the owner only; `agreement` is null until the card was looked at.
    """

    sealed: bytes
    """The signed record, base64 in JSON."""
    is_local: bool
    trust: float | None = None
    agreement: float | None = None


class CardsState(Struct, frozen=True):
    """`GET /api/v1/cards`: one card of each specialist. With `?specialist=` all of that one."""

    schema_version: int
    cards: tuple[CardState, ...]


class Check(Struct, frozen=True):
    """One step of a join or of the doctor, with what was found and, if it failed, what to do."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class JoinReport(Struct, frozen=True):
    """Last line of the answer to `POST /api/v1/join {"target": invite or address}`.

    The answer is NDJSON: a `Check` in each line, then this.
    """

    schema_version: int
    joined: bool
    peer: str
    checks: tuple[Check, ...]


class SwarmState(Struct, frozen=True):
    """One row of `GET /api/v1/swarms`: a swarm that this node belongs to."""

    name: str
    swarm: str
    """The id."""
    kind: str
    """`private`, `public`, or `open`: a public one without an owner."""
    is_current: bool
    """Whether requests that name no swarm go there."""
    peer: str
    """Who this node is there."""
    roles: tuple[str, ...]
    certificate_expires_in: float | None
    delegation_expires_in: float | None
    """For issuers."""
    epoch: int
    issuers: tuple[str, ...]
    revoked: int
    members: int
    """Seen since the node started, with this one."""
    addresses: tuple[str, ...]
    reachable: tuple[str, ...]
    """Addresses at which others have reached this node over a new connection."""
    network: str
    """`up`, or what is wrong."""
    owner_key: str
    """File of the owner's key, if it is on this machine."""
    readers: str
    """A sentence for people: who can read a prompt that is sent there."""


class SwarmsState(Struct, frozen=True):
    """`GET /api/v1/swarms`."""

    schema_version: int
    swarms: tuple[SwarmState, ...]


class MemberState(Struct, frozen=True):
    """One row of `GET /api/v1/swarms/{name}/members`."""

    peer: str
    name: str
    is_self: bool
    state: str
    """`ok`, `unseen` (announced, not met yet) or `revoked`."""
    roles: tuple[str, ...]
    issuer: str
    expires_in: float | None


class MembersState(Struct, frozen=True):
    """`GET /api/v1/swarms/{name}/members`."""

    schema_version: int
    swarm: str
    members: tuple[MemberState, ...]


class InviteReport(Struct, frozen=True):
    """`POST /api/v1/swarms/{name}/invite {"roles": [...], "uses": n, "lifetime": seconds}`."""

    schema_version: int
    swarm: str
    invite: str
    invite_id: str
    """Public half of the invite, to withdraw it; empty in public swarms."""
    roles: tuple[str, ...]
    uses: int
    expires_at: float
    """Unix seconds; 0 means never."""


class WithdrawalReport(Struct, frozen=True):
    """`POST /api/v1/swarms/{name}/withdraw {"invite": string or id}`."""

    schema_version: int
    swarm: str
    invite_id: str


class DocumentsState(Struct, frozen=True):
    """`GET /api/v1/swarms/{name}/documents`; the same documents can be posted to another node."""

    schema_version: int
    swarm: str
    documents: tuple[bytes, ...]
    """Signed bytes, base64 in JSON: the revocations in force, if any, then the delegations."""


class SwarmReaders(Struct, frozen=True):
    """One row of `GET /api/v1/readers`: who can read what is sent to a swarm of this node."""

    name: str
    kind: str
    """As in `SwarmState`."""
    is_current: bool
    readers: str
    """A sentence for people."""


class ReadersState(Struct, frozen=True):
    """`GET /api/v1/readers`. `route` is what requests get that name none."""

    schema_version: int
    route: str
    swarms: tuple[SwarmReaders, ...]


class PingReport(Struct, frozen=True):
    """`POST /api/v1/ping {"peer": ..., "count": n}`: round trips in milliseconds."""

    schema_version: int
    peer: str
    name: str
    software: str
    samples_ms: tuple[float, ...]


class NodeView(Protocol):
    """What the gateway needs from the running node, besides answers.

    `swarm` names one of the swarms of `readers`; None means the current one. `UserError` if this
    node is not in it.
    """

    def state(self, swarm: str | None = None) -> NodeState:
        """Now."""
        ...

    def peers(self, swarm: str | None = None) -> PeersState:
        """The directory's peers, this one included, with our own measurements."""
        ...

    def specialists(self, swarm: str | None = None) -> SpecialistsState:
        """From local knowledge; never waits for the network."""
        ...

    def cards(self, specialist: str = "", swarm: str | None = None) -> CardsState:
        """The cards of `specialist`, or one of each; from local knowledge."""
        ...

    def readers(self) -> tuple[SwarmReaders, ...]:
        """The swarms that this node belongs to, the current one first; asked for every prompt."""
        ...

    def join(self, target: str) -> AsyncGenerator[Check | JoinReport, None]:
        """Join by an invite, or dial an address of the open swarm; each check as it is done.

        The last value is the report. A `UserError` for what is neither.
        """
        ...

    async def swarms(self) -> SwarmsState:
        """The swarms that this node belongs to, the current one first."""
        ...

    async def members(self, name: str) -> MembersState:
        """Who is in the swarm `name`; `UserError` if this node is not in it."""
        ...

    async def invite(
        self, name: str, roles: tuple[str, ...], uses: int, lifetime: float
    ) -> InviteReport:
        """A new invite, valid for `lifetime` seconds; `UserError` if this node may make none."""
        ...

    async def withdraw(self, name: str, invite: str) -> WithdrawalReport:
        """Let nobody use an invite (its string or id) any more; `UserError` if it is not there."""
        ...

    async def use(self, name: str) -> None:
        """Send requests that name no swarm to `name` from now on."""
        ...

    async def load(self, name: str) -> None:
        """Start taking part in a swarm whose folder was made by a command."""
        ...

    async def leave(self, name: str) -> None:
        """Take part no more, and delete this node's papers for the swarm."""
        ...

    async def documents(self, name: str) -> tuple[bytes, ...]:
        """What the owner signed and is in force: the revocations if any, then the delegations."""
        ...

    async def publish(self, name: str, documents: tuple[bytes, ...]) -> None:
        """Take over documents that the owner signed (delegations, revocations); spread them."""
        ...

    def adapters(self) -> AdaptersState:
        """The specialists here that are adapters on a base."""
        ...

    async def add_adapter(self, order: AdapterOrder) -> None:
        """Load one while the node runs, and offer it. `UserError` if that cannot be."""
        ...

    async def remove_adapter(self, name: str) -> None:
        """Offer one no more; answers in progress go on. `UserError` if there is none."""
        ...

    async def ping(self, peer: str, count: int) -> PingReport:
        """Measure round trips to a peer id, a unique prefix of one, or a node name."""
        ...

    def stats(self) -> StatsState:
        """Sums over all answers asked here."""
        ...

    def metrics(self) -> str:
        """Prometheus text format."""
        ...
