"""All fuzz targets by name, and which of them share a child process in the short run.

Knows names only. A group's module is imported when one of its targets is made: the wire's parsers
need not wait for torch, nor models' files for hivemind.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from tests.fuzz.target import Maker, Target

GROUPS: Mapping[str, tuple[str, ...]] = {
    "wire": (
        "frames",
        "ask_client",
        "ask_server",
        "info",
        "tensors",
        "tensor_specs",
        "sealed_records",
        "record_bodies",
        "peer_ids",
        "specialist_ids",
        "swarm_ids",
        "key_files",
        "memory_addresses",
        "memory_requests",
        "memory_replies",
    ),
    "membership": (
        "hello",
        "enrol",
        "reach",
        "swarm_state",
        "charters",
        "invites",
        "invite_bodies",
        "credentials",
        "certificate_bodies",
        "delegation_bodies",
        "revocation_bodies",
        "ledgers",
    ),
    "store": (
        "guard_parse",
        "guard_store",
        "guard_find_response",
        "guard_dictionary",
        "guard_dictionary_raw",
        "judged_values",
        "dht_ping",
        "dht_store",
        "dht_find",
        "dht_client",
        "control_headers",
        "control_bodies",
        "dial_addresses",
        "listen_addresses",
    ),
    "swarm": (
        "charter_files",
        "credential_files",
        "delegation_files",
        "revocation_files",
        "ledger_files",
        "remembered_files",
        "owner_key_files",
        "owner_key_bodies",
    ),
    "model": (
        "config_json",
        "gguf",
        "gguf_model",
        "safetensors_headers",
        "safetensors_files",
        "safetensors_index",
        "tokenizer_json",
        "tokenizer_config",
        "generation_config",
        "chat_templates",
        "wheels",
    ),
    "adapter": (
        "peft_settings",
        "peft_weights",
        "compact_settings",
        "compact_weights",
    ),
    "local": (
        "chat_bodies",
        "completion_bodies",
        "config_files",
        "card_files",
        "quantities",
        "api_key_files",
        "standing_files",
    ),
}
"""Targets with the same imports, by the module `tests.fuzz.GROUP_targets` that makes them."""

TARGETS: tuple[str, ...] = tuple(name for names in GROUPS.values() for name in names)


def make_target(name: str, folder: Path) -> Target:
    """The target `name`; `folder` must be empty and is its own."""
    group = next((group for group, names in GROUPS.items() if name in names), "selftest")
    module = import_module(f"tests.fuzz.{group}_targets")
    makers: Mapping[str, Maker] = module.MAKERS
    return makers[name](folder)
