"""What all verbs have in common: the flags, and the settings and client made from them.

Knows how Typer reads a function's signature; must not know any verb.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_type_hints

import typer

from node.cli.client import CONNECT_AND_READ_SECONDS, Client
from node.config import environment
from node.config_reader import LoadedConfig, Overrides, load_process_config
from node.gateway.admin_token import read_token
from node.paths import Paths
from node.process import RunningNode, find
from protocols.errors import ConfigError

_HOME = Annotated[Path | None, typer.Option(help="Folder for everything. [env: DSLM_HOME]")]
_CONFIG = Annotated[Path | None, typer.Option(help="Configuration file. [env: DSLM_CONFIG]")]
_URL = Annotated[str | None, typer.Option(help="Address of the node's API. [env: DSLM_URL]")]
_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_VERBOSE = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more.")]
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what was asked for.")]
_COMMON: dict[str, tuple[object, object]] = {
    "home": (_HOME, None),
    "config": (_CONFIG, None),
    "url": (_URL, None),
    "json": (_JSON, False),
    "verbose": (_VERBOSE, 0),
    "quiet": (_QUIET, False),
}


@dataclass(frozen=True, slots=True)
class Invocation:
    """The common flags of one command."""

    home: Path | None = None
    config_file: Path | None = None
    url: str | None = None
    json: bool = False
    verbose: int = 0
    quiet: bool = False

    def load(
        self, settings: tuple[tuple[str, str], ...] = (), models: tuple[str, ...] = ()
    ) -> LoadedConfig:
        """The configuration with these settings on top; `ConfigError` if it cannot be used."""
        return load_process_config(Overrides(self.home, self.config_file, settings, models))

    def client(self, timeout: float = CONNECT_AND_READ_SECONDS) -> Client:
        """The node to talk to: `--url`, `DSLM_URL`, the running node's own word, the settings.

        Its owner's token goes to the running node of this home only, `DSLM_API_KEY` to any other.
        """
        key = environment().get("DSLM_API_KEY", "")
        try:
            loaded = self.load()
        except ConfigError:
            if self.url:  # Settings that cannot be used do not matter to a node elsewhere.
                return Client(self.url, timeout, key)
            raise
        url = self.url or loaded.url
        running = find(loaded.config.paths.pid_file)
        if running is not None and (not url or Client(url).url == running.api_url):
            return own_client(loaded.config.paths, running, timeout)
        return Client(url or loaded.config.api.url, timeout, key)


def own_client(
    paths: Paths, running: RunningNode, timeout: float = CONNECT_AND_READ_SECONDS
) -> Client:
    """For the running node of this home, as its owner."""
    return Client(running.api_url, timeout, read_token(paths.admin_token_file))


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as Typer can register it: its `Invocation` is filled from the common flags."""
    hints = get_type_hints(function, include_extras=True)
    first, *own = inspect.signature(function).parameters.values()
    taken = {parameter.name for parameter in own}
    common = {name: spec for name, spec in _COMMON.items() if name not in taken}

    @functools.wraps(function)
    def command(*arguments: object, **values: object) -> None:
        given = {name: values.pop(name) for name in common}
        invocation = _invocation(given)
        function(invocation, *arguments, **values)

    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in common.items()
    ]
    command.__signature__ = inspect.Signature([*own, *extra])  # type: ignore[attr-defined]
    del hints[first.name]
    command.__annotations__ = hints | {name: kind for name, (kind, _) in common.items()}
    del command.__wrapped__
    return command


def _invocation(given: dict[str, object]) -> Invocation:
    home, config, url = given.get("home"), given.get("config"), given.get("url")
    count = given.get("verbose", 0)
    verbosity = count if isinstance(count, int) else 0
    return Invocation(
        home=home if isinstance(home, Path) else None,
        config_file=config if isinstance(config, Path) else None,
        url=url if isinstance(url, str) else None,
        json=bool(given.get("json")),
        verbose=verbosity,
        quiet=bool(given.get("quiet")),
    )
