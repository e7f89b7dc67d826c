"""Parsers of what arrives on this machine: HTTP bodies, the configuration, files of our own.

Knows `node` without models.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordinator.standing import Conduct, Standing
from node.card_content import card_of_file, fit_card, merged, sealed_size
from node.card_file import format_card_file, parse_card_file
from node.config import ModelConfig
from node.config_reader import Overrides, load
from node.gateway.bodies import ChatBody, CommonBody, CompletionBody, decode_body
from node.gateway.config import GatewayConfig
from node.gateway.errors import BadRequest
from node.gateway.keys import KeyFile
from node.gateway.requests import RequestReader
from node.quantities import parse_duration, parse_size
from node.state import SwarmReaders
from protocols import limits
from protocols.errors import ConfigError, ModelFileError, ProtocolError
from protocols.records import CapabilityCard
from tests.fuzz.target import ALICE, BOB, NOW, Maker, Target, run_to_end

_CHAT = {
    "model": "auto",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": -1,
    "seed": -3,
    "stop": ["x", "y"],
    "n": 1,
    "tools": [],
    "logit_bias": {},
    "dslm": {"route": "local", "budget": 9.5, "return_token_ids": True},
}
_COMPLETION = {"model": "smollm2", "prompt": "once", "stop": "x", "max_tokens": 3, "echo": False}
_WORDS = tuple(
    msgspec.json.encode(word)
    for word in (*_CHAT, *_COMPLETION, "role", "content", "tool_calls", "developer", "tool", "any")
)
_CONFIG = b"""
[api]
listen = "127.0.0.1:7777"
body_max = "2MiB"
[node]
name = "box"
drain = 8.5
[network]
listen = ["/ip4/0.0.0.0/tcp/7779"]
bootstrap = []
[swarm]
name = "public"
[log]
level = "info"
json = true
[[models]]
id = "law"
path = "./law.gguf"
slots = 2
domains = ["law", "tax"]
examples = ["what is a tort?"]
"""
_CONFIG_WORDS = (
    *b"[api] [node] [network] [swarm] [engine] [router] [log] [[models]] models = none".split(),
    *b"listen body_max drain threads data 5m 1.5h 2GiB inf nan 1e400 ~ ./ examples fp32".split(),
    b'"./a\\u0000b"',
    b'"~nobody-here/x"',
    b'data = "~nobody-here"',
    b'examples = "a\\u0000b"',
)

_CARD = b"""
description = "German income tax"
domains = ["law/tax"]
languages = ["de"]
licence = "mit"
sources = ["https://example.org"]
activated = false
exemplars = ["Can I deduct it?", "What is owed?"]
[[scores]]
probe = "set"
metric = "accuracy"
score = 0.5
examples = 9
digest = "ab"
by = "me"
[encoded]
encoder = "e"
[[encoded.prototypes]]
vector = "AQID"
scale = 0.01
"""
_CARD_WORDS = (
    *b"[[scores]] [encoded] [[encoded.prototypes]] exemplars = domains true nan inf 1e400".split(),
    *b"modalities licence vector = scale = examples = -1 0.0 probe metric 1970-01-01".split(),
    b'"\\u0000"',
    b'"\\U0001F600"',
    b"'''",
)


class _Request(dict[str, str]):
    """As much of a web request as the reader looks at."""

    def __init__(self, body: bytes) -> None:
        super().__init__({"request_id": "r"})
        self._body = body
        self.headers: dict[str, str] = {}

    def __missing__(self, _key: object) -> str:
        return "r"

    async def read(self) -> bytes:
        """The body."""
        return self._body


class _View:
    """A node that knows nobody."""

    def peers(self) -> Any:
        """None."""
        return type("Peers", (), {"peers": ()})

    def readers(self) -> tuple[SwarmReaders, ...]:
        """One open swarm."""
        return (SwarmReaders("public", "open", True, "anybody"),)


def _bodies(shape: type[CommonBody], seed: dict[str, Any]) -> Maker:
    def make(folder: Path) -> Target:  # noqa: ARG001
        reader = RequestReader(GatewayConfig(), _View(), random.Random(1))  # type: ignore[arg-type]
        read: Any = reader.chat if shape is ChatBody else reader.completion

        def run(data: bytes) -> None:
            decode_body(data, shape)
            run_to_end(read(_Request(data)))

        return Target(run, (BadRequest,), (msgspec.json.encode(seed),), "json", _WORDS)

    return make


def config_files(folder: Path) -> Target:
    """The user's configuration."""
    file = folder / "config.toml"
    nowhere = folder / "none.toml"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        load(Overrides(home=folder), {}, nowhere)

    return Target(
        run, (ConfigError,), (_CONFIG,), "text", _CONFIG_WORDS, 4_096, 4.0, takes_bombs=False
    )


def card_files(folder: Path) -> Target:  # noqa: ARG001
    """A card file, as it may come with an adapter of a stranger's; what it says fits on a card."""

    def run(data: bytes) -> None:
        file = parse_card_file(data)
        assert parse_card_file(format_card_file(file).encode()) == file
        card = run_to_end(card_of_file("law", merged(ModelConfig("x"), file), None))
        assert isinstance(card, CapabilityCard)
        fitting, _ = fit_card(card)
        assert sealed_size(fitting) <= limits.RECORD_BYTES_MAX

    return Target(
        run,
        (ModelFileError,),
        (_CARD,),
        "text",
        _CARD_WORDS,
        4_096,
        seconds_max=4.0,
        takes_bombs=False,
    )


def quantities(folder: Path) -> Target:  # noqa: ARG001
    """Durations and sizes as text."""

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        refused = 0
        for parse in (parse_duration, parse_size):
            try:
                parse(text)
            except ConfigError:
                refused += 1
        if refused == 2:
            raise ConfigError("neither")

    seeds = (b"5m", b"1.5h", b"250ms", b"2GiB", b"500 MB", b"30")
    return Target(run, (ConfigError,), seeds, "text", seeds, 600)


def api_key_files(folder: Path) -> Target:
    """The file of the API's keys, as its owner may have edited it."""
    file = folder / "keys.json"
    KeyFile(file).create("laptop")
    seed = file.read_bytes()

    def run(data: bytes) -> None:
        file.write_bytes(data)
        file.chmod(0o600)
        keys = KeyFile(file)
        keys.names()
        assert keys.check("dslm-guess") is None

    return Target(run, (ConfigError,), (seed,), "json")


def standing_files(folder: Path) -> Target:  # noqa: ARG001
    """What a node remembers of other peers' conduct."""
    good = {ALICE.peer_id: Conduct(NOW, 3_600.0, 7, 1), BOB.peer_id: Conduct(NOW)}

    def run(data: bytes) -> None:
        standing = Standing.load(data)
        standing.allowance_of(ALICE.peer_id)
        assert Standing.load(standing.dump()).dump() == standing.dump()

    seed = msgspec.msgpack.encode(good)
    return Target(run, (ProtocolError,), (seed,), "msgpack")


MAKERS: Mapping[str, Maker] = {
    "api_key_files": api_key_files,
    "standing_files": standing_files,
    "chat_bodies": _bodies(ChatBody, _CHAT),
    "completion_bodies": _bodies(CompletionBody, _COMPLETION),
    "card_files": card_files,
    "config_files": config_files,
    "quantities": quantities,
}
