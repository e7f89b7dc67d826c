"""Turns of a conversation, calls and tools as the plain values that chat templates expect.

Knows the shapes that `transformers` hands to templates; must not know Jinja.
"""

import msgspec

from protocols.errors import Unsupported
from protocols.messages.ask import ChatMessage, ToolCall

Turn = dict[str, object]


def turn_of(message: ChatMessage) -> Turn:
    """A message; fields that say nothing are left out, since templates ask whether they exist."""
    turn: Turn = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [_call_of(call) for call in message.tool_calls]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if message.name:
        turn["name"] = message.name
    return turn


def _call_of(call: ToolCall) -> Turn:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": _arguments_of(call.arguments)},
    }


def _arguments_of(text: str) -> object:
    """The object that they are, since templates write it as JSON themselves; else the text."""
    try:
        found: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return found if isinstance(found, dict) else text


def parse_tools(text: str) -> list[Turn]:
    """The tools in a JSON array; `Unsupported` if they are not described as OpenAI does."""
    try:
        tools: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unsupported(f"'tools' are not valid JSON: {error}.") from error
    if not isinstance(tools, list) or not all(_is_function(tool) for tool in tools):
        raise Unsupported("'tools' must be functions with names.")
    return tools


def _is_function(tool: object) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)
