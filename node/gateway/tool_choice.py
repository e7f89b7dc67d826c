"""A choice of tools that leaves the model none, as a constraint that makes its answer one call.

Knows OpenAI's fields and JSON schemas; must not know how a constraint is followed. The answer is a
call without marks, `{"name": ..., "arguments": {...}}`, which `node.gateway.tool_calls` reads.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from node.gateway.bodies import ChatBody, FunctionBody, ToolBody
from node.gateway.errors import BadRequest
from protocols import limits
from protocols.messages.ask import JsonSchema


class _NamedFunction(Struct, frozen=True):
    name: str


class _Named(Struct, frozen=True):
    """`tool_choice` that names a function."""

    function: _NamedFunction
    type: Literal["function"] = "function"


def forced_call(body: ChatBody) -> JsonSchema | None:
    """The schema of a call of one of the tools that must be called; None if none must.

    `BadRequest` for a choice that is none, or one that no tool of the request satisfies.
    """
    if body.tool_choice in (None, "auto", "none"):
        return None
    functions = [tool_of(tool, f"tools[{at}]") for at, tool in enumerate(body.tools or ())]
    wanted = _wanted(body.tool_choice)
    chosen = [one for one in functions if wanted in (None, one.name)]
    if not chosen:
        raise BadRequest("'tool_choice' wants a tool that 'tools' does not have.", "tool_choice")
    calls = [_schema_of(one, at) for at, one in enumerate(chosen)]
    text = msgspec.json.encode({"anyOf": calls}).decode()
    if len(text) > limits.CONSTRAINT_BYTES_MAX:
        raise BadRequest(
            f"The schemas of the tools have {len(text)} characters; at most "
            f"{limits.CONSTRAINT_BYTES_MAX} are taken when a call is forced.",
            "tools",
        )
    return JsonSchema(text)


def tool_of(tool: Mapping[str, object], path: str) -> FunctionBody:
    """The function of one of `tools`; a `BadRequest` names `path`."""
    try:
        return msgspec.convert(tool, ToolBody).function
    except msgspec.ValidationError as error:
        raise BadRequest(f"Invalid value for {path!r}: {error}.", path) from error


def _wanted(choice: object) -> str | None:
    """The name of the function that must be called; None if any will do."""
    if choice == "required":
        return None
    try:
        return msgspec.convert(choice, _Named).function.name
    except msgspec.ValidationError as error:
        raise BadRequest(
            "'tool_choice' is 'auto', 'none', 'required' or "
            '{"type": "function", "function": {"name": ...}}.',
            "tool_choice",
        ) from error


def _schema_of(function: FunctionBody, at: int) -> dict[str, object]:
    arguments = function.parameters or {"type": "object"}
    moved = _moved(arguments, f"#/anyOf/{at}/properties/arguments")
    return {
        "type": "object",
        "properties": {"name": {"const": function.name}, "arguments": moved},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: object, root: str) -> object:
    """A schema whose references to its own root, `#`, now find it at `root`."""
    match schema:
        case Mapping():
            return {
                name: root + value[1:]
                if name == "$ref" and isinstance(value, str) and value.startswith("#")
                else _moved(value, root)
                for name, value in schema.items()
            }
        case str():
            return schema
        case Sequence():
            return [_moved(one, root) for one in schema]
        case _:
            return schema
