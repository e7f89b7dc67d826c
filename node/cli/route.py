"""`dslm route`: what would be done with a prompt, without doing it.

Knows the API's report of a plan; must not know how it was made.
"""

from typing import Annotated

import typer
from msgspec import Struct

from node.cli.answering import (
    ChatMessage,
    ChatRequest,
    Plan,
    PlanFlag,
    QualityFlag,
    RouteFlag,
    own_options,
)
from node.cli.explaining import plan_lines
from node.cli.output import show, show_json
from node.cli.readers import tell_readers, with_input
from node.cli.settings import SwarmFlag
from node.cli.verb import Invocation, verb

EPILOG = """\b
Examples:
  dslm route "What is 15 % of 80 mg, and may a nurse give it?"
  dslm route --json --plan single "Is this contract fair?" < contract.txt

\b
No specialist is asked, so nobody but this node reads the prompt.
"""


class RouteReport(Struct, frozen=True):
    """What `--json` prints."""

    schema_version: int = 0
    specialist: str = ""
    peer: str = ""
    second_choice: str | None = None
    why: str = ""
    seconds: float = 0.0
    plan: Plan | None = None


@verb
def route(  # noqa: PLR0913, PLR0917  (Typer reads the flags from the signature)
    invocation: Invocation,
    prompt: Annotated[str, typer.Argument(help="The prompt; standard input is added to it.")] = "",
    system: Annotated[str, typer.Option("--system", "-s", help="System prompt.")] = "",
    route: RouteFlag = None,
    swarm: SwarmFlag = "",
    plan: PlanFlag = None,
    quality: QualityFlag = None,
) -> None:
    """Tell which specialists `dslm run auto` would ask, and why, without asking them."""
    messages = [ChatMessage("system", system)] if system else []
    messages.append(ChatMessage("user", with_input(prompt, 'dslm route "PROMPT"')))
    own = own_options(route, swarm, plan, quality)
    client = invocation.client()
    if invocation.verbose:
        tell_readers(client, route, swarm)
    request = ChatRequest(model="auto", messages=messages, dslm=own)
    report = client.post("/api/v1/route", request, RouteReport)
    if invocation.json:
        show_json(report)
        return
    for line in route_lines(report):
        show(line)


def route_lines(report: RouteReport) -> list[str]:
    """The plan, and who would begin."""
    other = f", else {report.second_choice}" if report.second_choice else ""
    return [
        *(plan_lines(report.plan) if report.plan else [report.why]),
        f"first: {report.specialist} at {report.peer}{other}",
        f"decided in {1000 * report.seconds:.0f} ms",
    ]
