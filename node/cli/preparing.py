"""What must be there before a node can start: its model files, its ports, its keys.

Knows files, ports and keys of this machine; must not import a model runtime.
"""

import re
import socket
from contextlib import closing
from dataclasses import replace

from node.config import NodeConfig
from node.hosting.download import Progress
from node.hosting.fetch import default_encoder_paths, fetch_encoder, resolve
from protocols.errors import AddressInUse, UserError

_TCP = re.compile(r"/ip4/([0-9.]+)/tcp/(\d+)")


def with_model_files(config: NodeConfig, progress: Progress) -> NodeConfig:
    """`config` with the path of each model's file or folder, fetched if need be.

    The sentence encoder is fetched too, unless it is off; when that fails, `progress` says so and
    the node starts without it. A model that cannot be had raises `UserError`.
    """
    folder = config.paths.models
    models = tuple(
        replace(model, path=str(resolve(model.path, folder, progress))) for model in config.models
    )
    if config.router.encoder == "auto" and not default_encoder_paths(folder).exist:
        try:
            fetch_encoder(folder, progress)
        except UserError as error:
            progress.note(f"without a sentence encoder, auto means the plain base: {error}")
    return replace(config, models=models)


def require_api_keys(config: NodeConfig) -> None:
    """`ConfigError` if others can reach the API, and nobody has a key for it."""
    from node.gateway.config import GatewayConfig
    from node.gateway.keys import KeyFile, require_keys

    api = config.api
    gateway = GatewayConfig(api.host, api.port, api.require_key, api.hosts)
    require_keys(gateway, KeyFile(config.paths.api_keys_file))


def require_free_ports(config: NodeConfig) -> None:
    """`AddressInUse` if the API's port, or one to listen on for peers, is taken."""
    _require_free(config.api.host, config.api.port, "api.listen", "--api 127.0.0.1:PORT")
    for address in config.network.listen:
        if match := _TCP.match(address):
            _require_free(match[1], int(match[2]), "network.listen", "--listen /ip4/0.0.0.0/tcp/N")


def _require_free(host: str, port: int, key: str, flag: str) -> None:
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AddressInUse(
                f"cannot listen on {host} port {port} ({key}): {error.strerror}. If a node runs "
                f"there, `dslm status` shows it; else choose another port with {flag}"
            ) from error
