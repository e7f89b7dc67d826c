"""What a body asks of an answer beyond its words, as values: constraint, tools, bias, logprobs.

Knows OpenAI's fields and the protocol's; must not know HTTP or how an answer is sent back.
"""

from dataclasses import dataclass

import msgspec

from node.gateway.bodies import ChatBody, CommonBody, CompletionBody
from node.gateway.errors import BadRequest
from node.gateway.tool_choice import forced_call, tool_of
from protocols import limits
from protocols.messages.ask import (
    Constraint,
    Grammar,
    JsonSchema,
    LogitBias,
    RegularExpression,
)

_ANY_OBJECT = '{"type":"object"}'


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a request: JSON as text for the template, and the names to look out for.

    `text` is empty if there are none, or the model must not call any.
    """

    text: str = ""
    names: frozenset[str] = frozenset()
    one_call: bool = False
    """Whether an answer may have one call only."""


def tools_of(body: ChatBody) -> Tools:
    """What the model is told of, and what is taken for a call."""
    if not body.tools or body.tool_choice == "none":
        return Tools()
    names = frozenset(tool_of(tool, f"tools[{at}]").name for at, tool in enumerate(body.tools))
    text = msgspec.json.encode(body.tools).decode()
    if len(text) > limits.TOOLS_BYTES_MAX:
        raise BadRequest(
            f"'tools' have {len(text)} characters; at most {limits.TOOLS_BYTES_MAX} are taken.",
            "tools",
        )
    return Tools(text, names, body.parallel_tool_calls is False)


def constraint_of(body: CommonBody) -> Constraint | None:
    """The only one of `response_format`, a forced call, `dslm.regex` and `dslm.grammar`."""
    own = body.dslm
    found: list[Constraint | None] = []
    if isinstance(body, ChatBody):
        found += [_format_of(body), forced_call(body)]
    if own is not None:
        found.append(RegularExpression(own.regex) if own.regex is not None else None)
        found.append(Grammar(own.grammar) if own.grammar is not None else None)
    constraints = [one for one in found if one is not None]
    if len(constraints) > 1:
        raise BadRequest(
            "Give one of 'response_format', a 'tool_choice' that forces a call, 'dslm.regex' and "
            "'dslm.grammar' only.",
            "dslm",
        )
    return constraints[0] if constraints else None


def _format_of(body: ChatBody) -> JsonSchema | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return JsonSchema(_ANY_OBJECT)
    if wanted.json_schema is None:
        raise BadRequest(
            "Missing required parameter: 'response_format.json_schema'.",
            "response_format.json_schema",
        )
    schema = msgspec.json.encode(wanted.json_schema.schema).decode()
    if len(schema) > limits.CONSTRAINT_BYTES_MAX:
        raise BadRequest(
            f"The schema has {len(schema)} characters; at most {limits.CONSTRAINT_BYTES_MAX} are "
            "taken.",
            "response_format.json_schema.schema",
        )
    return JsonSchema(schema)


def biases_of(body: CommonBody) -> tuple[LogitBias, ...]:
    """`logit_bias`, whose keys are token ids as text."""
    return tuple(LogitBias(_token_id(name), bias) for name, bias in (body.logit_bias or {}).items())


def _token_id(name: str) -> int:
    if not (name.isascii() and name.isdecimal() and len(name) <= 10 and int(name) < 2**31):
        raise BadRequest(f"Invalid value for 'logit_bias': {name!r} is no token id.", "logit_bias")
    return int(name)


def logprobs_of(body: CommonBody) -> int | None:
    """How many likely tokens to tell beside each; None if not even its own likelihood."""
    match body:
        case ChatBody(logprobs=True):
            return body.top_logprobs or 0
        case ChatBody(top_logprobs=count) if count:
            raise BadRequest("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
        case CompletionBody():
            return body.logprobs
        case _:
            return None
