"""`dslm chat`: a conversation, line by line.

Knows the conversation and its commands; must not know how answers are made.
"""

import difflib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import typer

from node.cli.answering import (
    ChatMessage,
    ChatRequest,
    OwnOptions,
    PlanFlag,
    QualityFlag,
    RouteFlag,
    ask_streaming,
    closing_line,
    heading_shower,
    own_options,
    spoken_text,
)
from node.cli.client import ApiError, Client
from node.cli.output import show, show_piece, tell
from node.cli.readers import tell_readers
from node.cli.settings import SwarmFlag, in_swarm
from node.cli.verb import Invocation, verb
from node.state import SpecialistsState
from protocols.errors import DslmError, NotRunning, UnknownModel

EPILOG = """\b
Examples:
  dslm chat
  dslm chat smollm2
  dslm chat --route local     with this node's own models only
  dslm chat --swarm lab

\b
In the chat: /help, /model ID, /system TEXT, /clear, /bye. Three double quotes begin and
end a text of several lines. Ctrl-C stops an answer, Ctrl-D ends the chat.
"""
_HELP = """\
/model ID     answer with this specialist (auto: have one chosen); without ID: list them
/system TEXT  set the system prompt; without TEXT: none
/clear        forget the conversation
/bye          end (so does Ctrl-D)
\"\"\"           begin or end a text of several lines
Ctrl-C        stop the answer"""
_FENCE = '"""'


@dataclass(slots=True)
class Conversation:
    """What has been said, and to whom."""

    client: Client
    model: str
    system: str = ""
    turns: list[ChatMessage] = field(default_factory=list)
    is_verbose: bool = False
    options: OwnOptions = field(default_factory=OwnOptions)
    swarm: str = ""

    def handle(self, line: str) -> bool:
        """Act on one line of input; whether to go on."""
        command, _, rest = line.partition(" ")
        actions: dict[str, Callable[[str], None]] = {
            "/help": lambda _: tell(_HELP),
            "/model": self._choose,
            "/system": self._instruct,
            "/clear": lambda _: self.turns.clear(),
        }
        if command == "/bye":
            return False
        if command in actions:
            actions[command](rest.strip())
        elif command.startswith("/") and "/" not in command[1:]:
            tell(f"there is no {command}; /help lists the commands")
        elif line.strip():
            self._ask(line)
        return True

    def _ask(self, text: str) -> None:
        """Stream an answer; an interrupted one is kept as far as it came."""
        messages = [ChatMessage("system", self.system)] if self.system else []
        messages += [*self.turns, ChatMessage("user", text)]
        pieces: list[str] = []

        def hear(piece: str) -> None:
            pieces.append(piece)
            show_piece(piece)

        try:
            answer = ask_streaming(
                self.client,
                ChatRequest(model=self.model, messages=messages, dslm=self.options),
                hear,
                on_heading=heading_shower(),
            )
            pieces[:] = [spoken_text(answer)]
        except KeyboardInterrupt:
            tell("\n(stopped)")
        except NotRunning:
            raise
        except DslmError as error:
            tell(("\n" if pieces else "") + f"error: {error}")
            if isinstance(error, ApiError) and error.api_code == "context_length_exceeded":
                tell("/clear forgets the conversation and makes room")
            return
        else:
            show("")
            if self.is_verbose:
                tell(closing_line(answer.report, {}))
        self.turns += [ChatMessage("user", text), ChatMessage("assistant", "".join(pieces))]

    def _choose(self, name: str) -> None:
        known = self._known_models()
        if not name:
            tell(f"now {self.model}; there are: auto {' '.join(known)}")
        elif name not in ("auto", *known):
            tell(f"error: {name} is not known; there are: auto {' '.join(known)}")
        else:
            self.model = name

    def _instruct(self, text: str) -> None:
        self.system = text

    def _known_models(self) -> list[str]:
        return known_models(self.client, self.swarm)


def known_models(client: Client, swarm: str) -> list[str]:
    """The ids of the specialists in `swarm` (empty: the current one)."""
    state = client.get(in_swarm("/api/v1/models", swarm), SpecialistsState)
    return [specialist.id for specialist in state.models]


@verb
def chat(  # noqa: PLR0913, PLR0917  (Typer reads the flags from the signature)
    invocation: Invocation,
    model: Annotated[str, typer.Argument(help="A specialist's id, or auto.")] = "auto",
    system: Annotated[str, typer.Option("--system", "-s", help="System prompt.")] = "",
    route: RouteFlag = None,
    swarm: SwarmFlag = "",
    plan: PlanFlag = None,
    quality: QualityFlag = None,
) -> None:
    """Talk with the swarm, line by line. Says first who can read what you write."""
    client = invocation.client()
    known = known_models(client, swarm)
    if model not in ("auto", *known):
        raise UnknownModel(model, tuple(difflib.get_close_matches(model, known, 3, 0.4)))
    tell_readers(client, route, swarm)
    conversation = Conversation(
        client,
        model,
        system,
        is_verbose=invocation.verbose > 0,
        options=own_options(route, swarm, plan, quality),
        swarm=swarm,
    )
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        import readline  # noqa: F401  (its import gives `input` editing and history)

        tell(f"chatting with {model}; /help lists commands, Ctrl-D ends")
    while (line := _read(is_terminal)) is not None:
        if not conversation.handle(line):
            return


def _read(is_terminal: bool) -> str | None:
    """The next line or fenced text of several lines; None at the end of input."""
    prompt = "> " if is_terminal else ""
    while True:
        try:
            line = input(prompt)
            if not line.startswith(_FENCE):
                return line
            lines = [line.removeprefix(_FENCE)]
            while not lines[-1].endswith(_FENCE) or len(lines) == 1:
                lines.append(input(". " if is_terminal else ""))
            return "\n".join(lines).removesuffix(_FENCE).strip("\n")
        except EOFError:
            if is_terminal:
                tell("")
            return None
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            tell("\n(Ctrl-D ends)")
