"""What is wrong with settings that are of the right type and still of no use.

Knows the form of addresses, names and peer ids; must not know where a value came from.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address

from node.config import ApiConfig, NetworkConfig, NodeConfig
from protocols.errors import ProtocolError
from protocols.ids import parse_peer_id
from protocols.membership.charter import open_charter

Complaint = tuple[str, object, str]
"""Key, value and reason."""

_ADDRESS = re.compile(r"(/[^/\s]+)+")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


def complaints(config: NodeConfig) -> Iterable[Complaint]:
    """Everything that cannot be used, in the order of the sections."""
    yield from _api(config.api)
    if config.engine.threads < 0:
        yield "engine.threads", config.engine.threads, "must be 0 or more"
    if config.engine.speculation not in {"auto", "lookup", "off"} and not config.engine.draft_model:
        yield (
            "engine.speculation",
            config.engine.speculation,
            "it can be auto, lookup, off or model:MODEL",
        )
    try:
        open_charter(config.swarm.name)
    except ProtocolError as error:
        yield "swarm.name", config.swarm.name, str(error)
    if config.memory.window < 0:
        yield "memory.window", config.memory.window, "must be 0 or more"
    for peer in config.router.trusted:
        try:
            parse_peer_id(peer)
        except ProtocolError as error:
            yield "router.trusted", peer, f"{error}; `dslm peers` prints peer ids"
    yield from _network(config.network)


def _api(api: ApiConfig) -> Iterable[Complaint]:
    host, colon, port = api.listen.rpartition(":")
    is_bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or is_bare_ipv6:
        yield "api.listen", api.listen, "use HOST:PORT, as in 127.0.0.1:7777 or [::1]:7777"
    for name in api.hosts:
        if not (_HOST.fullmatch(name.lower()) or _is_address(name)):
            yield "api.hosts", name, "use a name or an address without a port, as in chat.example"


def _network(network: NetworkConfig) -> Iterable[Complaint]:
    if not network.listen:
        yield "network.listen", "", "needs at least one address"
    for name in ("listen", "bootstrap", "announce", "relays"):
        addresses: tuple[str, ...] = getattr(network, name)
        for address in addresses:
            if not _ADDRESS.fullmatch(address):
                yield f"network.{name}", address, "no multiaddress, as in /ip4/192.0.2.7/tcp/7779"
            elif name in ("bootstrap", "relays") and "/p2p/" not in address:
                yield f"network.{name}", address, "must end in /p2p/PEER; `dslm up` prints it"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
