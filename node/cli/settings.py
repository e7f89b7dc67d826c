"""The flags by which `up` and `serve` set what the configuration file could set as well.

Knows flags and the settings they stand for; must not know what the settings do.
"""

from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import quote

import typer

from node.cli.exits import UsageError
from node.cli.verb import Invocation

ModelFlag = Annotated[
    list[str],
    typer.Option(
        help="What to host, [ID=]SOURCE; repeatable; `specialists` (default) is smollm2 and all "
        "specialists that ship, `none` hosts nothing."
    ),
]
ListenFlag = Annotated[str, typer.Option(help="Address to be reached at by peers (multiaddress).")]
ApiFlag = Annotated[str, typer.Option(help="HOST:PORT of the API and web page.")]
NameFlag = Annotated[str, typer.Option(help="Name that others see.")]
PrecisionFlag = Annotated[
    str, typer.Option(help="What weights are held in: auto (default), fp32, bf16, int8 or int4.")
]
SetFlag = Annotated[
    list[str], typer.Option("--set", help="Any setting, SECTION.KEY=VALUE; repeatable.")
]
SwarmFlag = Annotated[str, typer.Option(help="Swarm to ask in; the current one by default.")]


@dataclass(frozen=True, slots=True)
class SettingFlags:
    """What was set on the command line."""

    model: list[str] = field(default_factory=list)
    listen: str = ""
    api: str = ""
    name: str = ""
    others: list[str] = field(default_factory=list)
    precision: str = ""

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Settings as `section.key` and text; `UsageError` for one without `=`."""
        named = (
            ("network.listen", self.listen),
            ("api.listen", self.api),
            ("node.name", self.name),
            ("engine.precision", self.precision),
        )
        return (*((key, value) for key, value in named if value), *map(_pair, self.others))

    def arguments(self, invocation: Invocation) -> list[str]:
        """The same as arguments of `serve`."""
        arguments: list[str] = []
        if invocation.home:
            arguments += ["--home", str(invocation.home.absolute())]
        if invocation.config_file:
            arguments += ["--config", str(invocation.config_file.absolute())]
        for key, value in self.pairs():
            arguments += ["--set", f"{key}={value}"]
        for model in self.model:
            arguments += ["--model", model]
        return arguments


def in_swarm(path: str, swarm: str) -> str:
    """`path` of the API as a question about `swarm`, or about the current one if that is empty."""
    return f"{path}?swarm={quote(swarm, safe='')}" if swarm else path


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: use SECTION.KEY=VALUE, as in --set log.level=debug")
    return key.strip(), value
