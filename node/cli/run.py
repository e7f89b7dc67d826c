"""`dslm run`: one prompt, one answer.

Knows pipes: the answer alone is on stdout; must not know how answers are made.
"""

from dataclasses import dataclass
from typing import Annotated

import typer
from msgspec import UNSET, Struct

from node.cli.answering import (
    Answer,
    ChatMessage,
    ChatRequest,
    Note,
    PlanFlag,
    QualityFlag,
    Report,
    RouteFlag,
    Usage,
    ask_streaming,
    ask_whole,
    closing_line,
    heading_shower,
    own_options,
)
from node.cli.client import Client
from node.cli.explaining import plan_lines, report_lines
from node.cli.output import show, show_json, show_piece, tell
from node.cli.readers import tell_readers, with_input
from node.cli.settings import SwarmFlag
from node.cli.verb import Invocation, verb
from node.state import SCHEMA_VERSION

EPILOG = """\b
Examples:
  dslm run auto "Why is the sky blue?"
  dslm run smollm2 "Summarise this:" < report.txt
  dslm run auto -s "Answer in French." --temperature 0 "What is a DHT?"
  echo "2 + 2 =" | dslm run auto --json
  dslm run auto --route local "Is this contract fair?" < contract.txt
  dslm run auto --explain "What is 15 % of 80 mg, and may a nurse give it?"
"""


class RunResult(Struct, frozen=True):
    """What `--json` prints."""

    schema_version: int
    answer: str
    finish_reason: str
    usage: Usage | None
    dslm: Report


@verb
def run(  # noqa: PLR0913, PLR0917  (Typer reads the flags from the signature)
    invocation: Invocation,
    model: Annotated[str, typer.Argument(help="A specialist's id, or auto to have one chosen.")],
    prompt: Annotated[str, typer.Argument(help="The prompt; standard input is added to it.")] = "",
    system: Annotated[str, typer.Option("--system", "-s", help="System prompt.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Length of the answer.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=2.0, help="0 takes the likeliest token.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Repeats a sampled answer.")] = None,
    route: RouteFlag = None,
    swarm: SwarmFlag = "",
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print it when it ends.")] = False,
    plan: PlanFlag = None,
    quality: QualityFlag = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell the plan, its scores, and what became of it.")
    ] = False,
) -> None:
    """Ask one question. The answer alone goes to stdout; -v tells who answered, and timings."""
    messages = [ChatMessage("user", with_input(prompt, 'dslm run MODEL "PROMPT"'))]
    if system:
        messages.insert(0, ChatMessage("system", system))
    request = ChatRequest(
        model=model,
        messages=messages,
        max_tokens=UNSET if max_tokens is None else max_tokens,
        temperature=UNSET if temperature is None else temperature,
        seed=UNSET if seed is None else seed,
        dslm=own_options(route, swarm, plan, quality),
    )
    client = invocation.client()
    if invocation.verbose:
        tell_readers(client, route, swarm)
    teller = Teller(is_verbose=invocation.verbose > 0, explains=explain and not invocation.json)
    answer = _ask(client, invocation, request, teller, stream=not (no_stream or invocation.json))
    if invocation.json:
        show_json(
            RunResult(
                SCHEMA_VERSION, answer.text, answer.finish_reason, answer.usage, answer.report
            )
        )
    if answer.finish_reason == "length" and not invocation.quiet:
        tell("(cut off at the most tokens allowed; --max-tokens asks for more)")
    if teller.explains:
        for line in report_lines(answer.report):
            tell(line)
    if invocation.verbose:
        tell(closing_line(answer.report, {}))


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells on stderr what is going on, as far as a person wants to know it."""

    is_verbose: bool = False
    explains: bool = False

    def note(self, note: Note) -> None:
        """Tell of `note`, or not."""
        if self.explains and note.plan is not None:
            for line in plan_lines(note.plan):
                tell(line)
        if self.is_verbose:
            show_note(note)


def show_note(note: Note) -> None:
    """Tell the person who waits what is going on."""
    match note.phase:
        case "routed":
            tell(f"[{note.specialist} at {note.peer}: {note.why}]")
        case "queued":
            tell(f"[waiting: {note.ahead} before this one]")
        case "resumed":
            tell(f"[carried on by {note.to_peer}]")
        case "step":
            tell(f"[step {note.step + 1}: {note.specialist} at {note.peer}]")
        case _:
            return


def _ask(
    client: Client, invocation: Invocation, request: ChatRequest, teller: Teller, *, stream: bool
) -> Answer:
    if stream:
        answer = ask_streaming(client, request, show_piece, teller.note, heading_shower())
        show("")
        return answer
    answer = ask_whole(client, request, teller.note)
    if not invocation.json:
        show(answer.text)
    return answer
