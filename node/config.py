"""The settings of a node as frozen values, one dataclass for each section.

Knows every setting, its default and what it is for, and is the only place that touches the
environment. Must not know where values come from (`node.config_reader`) or what uses them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from node.paths import Paths

T = TypeVar("T")
Kind = Literal["plain", "duration", "size"]
Precision = Literal["auto", "fp32", "bf16", "int8", "int4"]
Kernels = Literal["auto", "native", "eager"]

DEFAULT_MODEL = "smollm2"
SHIPPED_MODELS = "specialists"
"""Stands for the default model and all specialists that ship; what a node hosts by default."""
"""What a node hosts when nothing is said: an alias that `node.hosting.fetch` knows."""


def setting(default: T, about: str, kind: Kind = "plain") -> T:
    """A dataclass field that is a setting: `about` is shown to people."""
    return field(default=default, metadata={"about": about, "kind": kind})


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """The HTTP side."""

    listen: str = setting(
        "127.0.0.1:7777", "address of the API and web page; beyond loopback keys are required"
    )
    body_max: int = setting(2 * 2**20, "largest request body", "size")
    require_key: bool = setting(False, "demand an API key on loopback too")
    hosts: tuple[str, ...] = setting((), "names by which others reach the API; keys are required")

    @property
    def host(self) -> str:
        """The address without the port."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port number."""
        return int(self.listen.rpartition(":")[2])

    @property
    def url(self) -> str:
        """Without a slash at the end; of all addresses of this machine, its own loopback one."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NodeSection:
    """The node itself."""

    name: str = setting("", "what other people see; empty: a part of the peer id")
    data: str = setting("", "folder of the identity and records; empty: by platform")
    drain: float = setting(8.0, "how long running answers may go on after SIGTERM", "duration")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The peer-to-peer side, in multiaddresses."""

    listen: tuple[str, ...] = setting(("/ip4/0.0.0.0/tcp/7779",), "addresses to listen on")
    bootstrap: tuple[str, ...] = setting((), "peers to join through, ending in /p2p/PEER")
    announce: tuple[str, ...] = setting((), "addresses to tell others, if listen is not enough")
    relays: tuple[str, ...] = setting((), "relays that we trust, ending in /p2p/PEER")
    relay_service: bool = setting(False, "be a relay for peers that cannot be dialled")
    remember: bool = setting(
        True, "keep peers met and how their cards did, for use after a restart"
    )


@dataclass(frozen=True, slots=True)
class SwarmConfig:
    """Which peers belong together."""

    name: str = setting("public", "open swarm to be in while the node belongs to no other")
    newcomers: Literal["limited", "welcome"] = setting(
        "limited", "strangers in public swarms get little until they have earned more, or all"
    )


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The model runtime."""

    threads: int = setting(0, "threads of the engine; 0: one for each physical core")
    precision: Precision = setting(  # noqa: RUF009 - a field of a frozen class
        "auto", "what weights are held in; auto: as a packed file has them, else the best that fits"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto", "where models are computed; auto: an NVIDIA GPU if there is one"
    )
    kernels: Kernels = setting(  # noqa: RUF009 - a field of a frozen class
        "auto", "compiled kernels (not for fp32) or torch's; auto: compiled where they work"
    )
    speculation: str = setting(
        "auto",
        "guess tokens and compute several at once where that saves time: auto or lookup (from the "
        "text itself and earlier answers), model:MODEL (with a small model too), or off",
    )
    cache: Literal["plain", "int8"] = setting(
        "plain", "keys and values; int8: in half the memory, computed by torch"
    )
    share_prefixes: bool = setting(
        False,
        "let clients find each other's prompts in the cache, and tell by the time that they do",
    )

    @property
    def draft_model(self) -> str:
        """The model that guesses, as `dslm pull` takes it; empty for none."""
        return self.speculation.partition(":")[2] if self.speculation.startswith("model:") else ""


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """What the steps of one task pass on: keys and values of the prompt that they read."""

    share: bool = setting(True, "send them to trusted peers and fetch them there")
    pages: Literal["int8", "bf16", "fp32"] = setting(
        "int8", "how they are fetched: int8 is half of bf16, and not quite exact"
    )
    window: int = setting(0, "last tokens of what could be fetched that are computed all the same")


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """The choice of a specialist for `auto`, and of who may read prompts."""

    encoder: Literal["auto", "off"] = setting("auto", "sentence encoder; off: always the base")
    route: Literal["any", "trusted", "local"] = setting("any", "who may read prompts, by default")
    trusted: tuple[str, ...] = setting((), "peer ids that count as trusted in public swarms")
    planner: Literal["auto", "off"] = setting("off", "word chains with the planning model, if here")
    doubt: Literal["card", "base"] = setting(
        "card", "an answer's first words are held against its card's bound, or against the base"
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What the node writes about itself."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "least severity")
    json: bool = setting(False, "one JSON object for each line")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One `[[models]]` table. `path` is any source of `node.hosting.fetch`, or a file or folder.

    fp32 is the default precision (`engine.precision`) because then every peer makes the same greedy
    text whatever it is batched with, so that another peer can carry an answer on unnoticed.
    """

    path: str
    id: str = ""
    precision: Precision | None = None
    """None: as `engine.precision`."""
    slots: int = 8
    """Answers at a time."""
    context: int = 2048
    """Tokens for prompt and answer; 0 means all that the model can."""
    domains: tuple[str, ...] = ()
    description: str = ""
    examples: tuple[str, ...] = ()
    """Typical prompts, from which the router learns what the model is for."""
    licence: str = ""
    adapter: str = ""
    """Folder of a LoRA adapter, PEFT's or dslm's own, that makes a specialist of `path`."""
    card: str = ""
    """A card file; empty: `card.toml` in the adapter's folder, if it is there. What is set here
    goes before what the file says."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything that the composition root needs to know."""

    paths: Paths
    api: ApiConfig = ApiConfig()
    node: NodeSection = NodeSection()
    network: NetworkConfig = NetworkConfig()
    swarm: SwarmConfig = SwarmConfig()
    engine: EngineConfig = EngineConfig()
    memory: MemoryConfig = MemoryConfig()
    router: RouterConfig = RouterConfig()
    log: LogConfig = LogConfig()
    models: tuple[ModelConfig, ...] = ()


SECTIONS: Mapping[str, type] = {
    "api": ApiConfig,
    "node": NodeSection,
    "network": NetworkConfig,
    "swarm": SwarmConfig,
    "engine": EngineConfig,
    "memory": MemoryConfig,
    "router": RouterConfig,
    "log": LogConfig,
}
"""The sections of a configuration file, besides `models`."""


def environment() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)


def let_threads_sleep() -> None:
    """Have OpenMP threads sleep while they wait; call it before torch is imported.

    Spinning, the default, was never quicker here, and made a node more than ten times slower on a
    machine that did anything else (docs/LOG.md). A setting of the owner's wins.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def derived_model_id(path: str) -> str:
    """The specialist id of a model without one: the last part of its path, in lower case."""
    last = path.rstrip("/").rsplit("/", 1)[-1].split("==")[0].removeprefix("pkg:").split("@")[0]
    stem = re.sub(r"\.(gguf|whl)$", "", last, flags=re.IGNORECASE).lower()
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._") or "model"
