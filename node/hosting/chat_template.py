"""A model's chat template: from a conversation to the one text the model was trained on.

Knows Jinja as `transformers` sets it up, in a sandbox (templates come with models, from
strangers); must not know tokens.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import jinja2

from node.hosting.template_budget import Budget, OverBudget, formatted_length
from node.hosting.template_sandbox import BoundedEnvironment
from node.hosting.template_turns import parse_tools, turn_of
from protocols.errors import ModelFileError, Unsupported
from protocols.messages.ask import ChatMessage

# What a template can raise besides its own errors when a conversation is not as it expects.
_COMPILING_FAULTS = (
    jinja2.TemplateError,
    SyntaxError,
    ValueError,
    RecursionError,
    MemoryError,
)
_RENDERING_FAULTS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NameError,  # a number too large for a float becomes the name `inf`
    RecursionError,
    MemoryError,
)

_PROBE = (ChatMessage("user", "Hi"),)
_PROBE_NAME = "dslm_probe"
_PROBE_TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": _PROBE_NAME,
                "description": "",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]
)
_CHARACTERS_PER_TURN = 200
"""So much of the tools' text counts as one turn when work is paid for."""
_SOURCE_CHARACTERS_MAX = 256 * 1024
"""Compiling takes time and memory in proportion; the longest known has 30,000."""


class ChatTemplate:
    """A compiled template. Rendering is a pure function but for templates that ask for the date."""

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`special_tokens` are texts under the names `bos_token`, `eos_token` and so on."""
        if len(source) > _SOURCE_CHARACTERS_MAX:
            raise ModelFileError(f"The model's chat template is too long ({len(source)}).")
        self._special_tokens = dict(special_tokens)
        self._environment = _environment(now)
        try:
            self._template = self._environment.from_string(source)
        # A number with thousands of digits is a ValueError, a `break` without a loop a SyntaxError
        # of the compiled code, brackets a thousand deep the others.
        except _COMPILING_FAULTS as error:
            raise ModelFileError(
                f"The model's chat template is damaged: {str(error)[:200]}."
            ) from error
        self._probe()
        self._knows_tools = self._tells_tools()

    def render(self, messages: Sequence[ChatMessage], tools: str = "") -> str:
        """The conversation up to where the assistant speaks next.

        `tools` is a JSON array as text, of tools as OpenAI describes them. `Unsupported` when the
        template refuses the conversation, for instance for two turns of one role; when it knows no
        tools; or when it would compute too much: a rendering takes about a second at the very most.
        """
        if tools and not self._knows_tools:
            raise Unsupported("'tools' are not known to this model: its chat template has none.")
        return self._render(messages, tools)

    def _render(self, messages: Sequence[ChatMessage], tools: str) -> str:
        given = {"tools": parse_tools(tools)} if tools else {}
        turns = [turn_of(message) for message in messages]
        calls = sum(len(call.arguments) for message in messages for call in message.tool_calls)
        extra = len(tools) + calls
        budget = Budget(
            sum(len(message.content) for message in messages) + extra,
            len(messages) + extra // _CHARACTERS_PER_TURN,
        )
        try:
            with self._environment.spending(budget):
                return self._template.render(
                    messages=turns, add_generation_prompt=True, **given, **self._special_tokens
                )
        except _RENDERING_FAULTS as error:
            raise Unsupported(
                f"The model's chat template cannot take this conversation: {str(error)[:200]}"
            ) from error

    def _tells_tools(self) -> bool:
        """Whether a tool's name comes out when there is one."""
        try:
            return _PROBE_NAME in self._render(_PROBE, _PROBE_TOOLS)
        except Unsupported:
            return False

    def _probe(self) -> None:
        """A template that overspends on one word is made to do harm: better told at the start."""
        try:
            self.render(_PROBE)
        except Unsupported as error:
            if isinstance(error.__cause__, OverBudget):
                raise ModelFileError(
                    f"The model's chat template is refused: {error.__cause__}. Use another model."
                ) from error


def _environment(now: Callable[[], datetime]) -> BoundedEnvironment:
    environment = BoundedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
        optimized=False,
    )

    def strftime_now(pattern: str) -> str:
        environment.budget.take(formatted_length(pattern, 0))
        return now().strftime(pattern)

    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.seal()
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
