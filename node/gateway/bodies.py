"""The fields of OpenAI's requests that dslm honours, and those that it refuses to drop silently.

Knows JSON and the bounds of each field; must not know the coordinator's values. Fields named in
neither place are ignored, as OpenAI's clients expect.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from node.gateway.errors import BadRequest, UnsupportedParameter
from protocols import limits

BodyT = TypeVar("BodyT", bound=Struct)

CHOICES_MAX = 16
"""Answers to one request."""

Count = Annotated[int, Meta(ge=1, le=limits.TOKENS_MAX)]
ConstraintText = Annotated[str, Meta(min_length=1, max_length=limits.CONSTRAINT_BYTES_MAX)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
TopLogprobs = Annotated[int, Meta(ge=0, le=limits.LOGPROBS_MAX)]
StopText = Annotated[str, Meta(min_length=1, max_length=limits.STOP_STRING_BYTES_MAX)]


class Part(Struct, frozen=True):
    """A piece of a message's content; only text can be read here."""

    type: str
    text: str | None = None


class CalledBody(Struct, frozen=True):
    """Which function an earlier turn called; `arguments` is JSON as text."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    arguments: Annotated[str, Meta(max_length=limits.TOOLS_BYTES_MAX)] = "{}"


class ToolCallBody(Struct, frozen=True):
    """A call in an earlier turn."""

    function: CalledBody
    id: Annotated[str, Meta(max_length=256)] = ""
    type: Literal["function"] = "function"


class MessageBody(Struct, frozen=True):
    """One turn of a conversation as clients send it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[Part, ...] | None = None
    tool_calls: (
        Annotated[tuple[ToolCallBody, ...], Meta(max_length=limits.TOOL_CALLS_MAX)] | None
    ) = None
    tool_call_id: Annotated[str, Meta(max_length=256)] | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None
    function_call: object = None


class FunctionBody(Struct, frozen=True):
    """A function that may be called, as far as it is looked at here."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    parameters: dict[str, object] | None = None


class ToolBody(Struct, frozen=True):
    """A tool that may be called, as far as it is looked at here."""

    function: FunctionBody
    type: Literal["function"] = "function"


class JsonSchemaBody(Struct, frozen=True):
    """A schema and what it is called."""

    schema: dict[str, object]
    name: str | None = None


class ResponseFormat(Struct, frozen=True):
    """What an answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaBody | None = None


class StreamOptions(Struct, frozen=True):
    """What a stream tells besides the text."""

    include_usage: bool | None = None


class DslmBody(Struct, frozen=True):
    """dslm's own part of a request; `budget` is in seconds for the whole answer.

    The whole answer matches `regex`, or follows `grammar` (llguidance's dialect of Lark). With the
    `plan` `single` one specialist answers, with the `quality` `best` two may try.
    """

    route: str | None = None
    swarm: Annotated[str, Meta(min_length=1, max_length=96)] | None = None
    node: Annotated[str, Meta(min_length=1, max_length=96)] | None = None
    budget: Annotated[float, Meta(gt=0, le=limits.DEADLINE_SECONDS_MAX)] | None = None
    return_token_ids: bool | None = None
    regex: ConstraintText | None = None
    grammar: ConstraintText | None = None
    plan: Literal["auto", "single"] | None = None
    quality: Literal["normal", "best"] | None = None


class CommonBody(Struct, frozen=True, kw_only=True):
    """What both endpoints take."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    n: Annotated[int, Meta(ge=1, le=CHOICES_MAX)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias], Meta(max_length=limits.LOGIT_BIASES_MAX)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: (
        StopText | Annotated[tuple[StopText, ...], Meta(max_length=limits.STOP_STRINGS_MAX)] | None
    ) = None
    dslm: DslmBody | None = None


class ChatBody(CommonBody, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[
        tuple[MessageBody, ...], Meta(min_length=1, max_length=limits.CHAT_MESSAGES_MAX)
    ]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[tuple[dict[str, object], ...], Meta(max_length=limits.TOOLS_MAX)] | None = None
    tool_choice: object = None
    parallel_tool_calls: bool | None = None


class CompletionBody(CommonBody, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | tuple[object, ...]
    logprobs: TopLogprobs | None = None


_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "best_of": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "chat_template_kwargs": ({},),
    "echo": (False,),
    "suffix": ("",),
}
"""Fields that would change the answer, with the values (besides null) that ask for nothing.

Those that a body has as fields are its own business."""

_AT = re.compile(r"^(?P<text>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")


def decode_body(data: bytes, shape: type[BodyT]) -> BodyT:
    """`data` as a body of type `shape`; a `BadRequest` names the field that is wrong."""
    try:
        fields: object = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise BadRequest("The request body must be a JSON object.")
    _refuse_unsupported(fields, frozenset(shape.__struct_fields__))
    try:
        return msgspec.convert(fields, shape)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error


def _refuse_unsupported(fields: Mapping[object, object], known: frozenset[str]) -> None:
    for name, neutral in _NEUTRAL.items():
        value = None if name in known else fields.get(name)
        if value is not None and not _is_neutral(value, neutral):
            raise UnsupportedParameter(
                f"{name!r} is not supported by this version of dslm. Please leave it out.", name
            )


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    """Whether `value` is one of `neutral`; to Python, though not to OpenAI, False equals 0."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


def _invalid(complaint: str) -> BadRequest:
    """msgspec's complaint as an error that names the field, e.g. `messages[0].role`."""
    found = _AT.match(complaint)
    text, path = (found["text"], found["path"] or "") if found else (complaint, "")
    if missing := _MISSING.match(text):
        name = f"{path}.{missing['name']}".lstrip(".")
        return BadRequest(f"Missing required parameter: {name!r}.", name)
    return BadRequest(f"Invalid value for {path!r}: {text}.", path or None)
