"""Turns a request's bytes into an `AnswerRequest`, or says which field is wrong.

Knows OpenAI's fields and the coordinator's values; must not know how an answer is sent back.
"""

import random
from dataclasses import dataclass, field, replace

from aiohttp import web

from coordinator.answer import AnswerRequest, Planning, Quality, Route
from node.gateway import wire
from node.gateway.bodies import (
    ChatBody,
    CommonBody,
    CompletionBody,
    DslmBody,
    MessageBody,
    decode_body,
)
from node.gateway.config import GatewayConfig
from node.gateway.errors import BadRequest, PromptTooLong, UnsupportedParameter
from node.gateway.swarm_choice import ReadersCode, choose_swarm, readers_code
from node.gateway.wishes import Tools, biases_of, constraint_of, logprobs_of, tools_of
from node.state import NodeView, SwarmReaders
from protocols import limits
from protocols.errors import ProtocolError
from protocols.ids import PeerId, RequestId, parse_peer_id
from protocols.messages.ask import Chat, ChatMessage, Prompt, Sampling, Text, ToolCall

COMPLETION_TOKENS = 16
"""What OpenAI's completions endpoint makes when `max_tokens` is absent."""

_TOP_P_MIN = 1e-6
_STRICTEST_FIRST = (Route.LOCAL, Route.TRUSTED, Route.ANY)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked for: the prompt for the coordinator, and how to tell the answer."""

    ask: AnswerRequest
    stream: bool
    include_usage: bool
    return_token_ids: bool
    readers: ReadersCode
    """Who can read the prompt."""
    tools: Tools = field(default_factory=Tools)
    choices: int = 1
    """How many answers."""


class RequestReader:
    """Reads and checks bodies. `rng` draws the seeds that requests leave open."""

    def __init__(self, config: GatewayConfig, view: NodeView, rng: random.Random) -> None:
        self._config = config
        self._view = view
        self._rng = rng

    async def chat(self, request: web.Request) -> Wanted:
        """The body of `POST /v1/chat/completions`."""
        body = decode_body(await request.read(), ChatBody)
        messages = tuple(
            _message(message, f"messages[{index}]") for index, message in enumerate(body.messages)
        )
        _check_size(sum(map(_size, messages)), "messages")
        max_tokens = body.max_completion_tokens or body.max_tokens or 0
        tools = tools_of(body)
        wanted = self._wanted(request, body, Chat(messages, tools.text), max_tokens)
        return replace(wanted, tools=tools)

    async def completion(self, request: web.Request) -> Wanted:
        """The body of `POST /v1/completions`."""
        body = decode_body(await request.read(), CompletionBody)
        text = _bare_prompt(body.prompt)
        _check_size(len(text.encode()), "prompt")
        return self._wanted(request, body, Text(text), body.max_tokens or COMPLETION_TOKENS)

    def _wanted(
        self, request: web.Request, body: CommonBody, prompt: Prompt, max_tokens: int
    ) -> Wanted:
        own = body.dslm or DslmBody()
        route = _route(own.route, request.headers.get("X-DSLM-Route"), self._config.route)
        swarm = self._swarm(own.swarm, request)
        ask = AnswerRequest(
            request_id=RequestId(request[wire.REQUEST_ID]),
            model=body.model,
            prompt=prompt,
            sampling=self._sampling(body),
            max_tokens=max_tokens,
            budget=min(own.budget or self._config.answer_budget, self._config.answer_budget),
            stop=(body.stop,) if isinstance(body.stop, str) else body.stop or (),
            route=route,
            node=self._peer(own.node, swarm.name) if own.node else None,
            swarm=swarm.name,
            constraint=constraint_of(body),
            tenant=request.get(wire.TENANT, ""),
            planning=Planning(own.plan or Planning.AUTO),
            quality=Quality(own.quality or Quality.NORMAL),
        )
        return Wanted(
            ask=ask,
            stream=bool(body.stream),
            include_usage=bool(body.stream_options and body.stream_options.include_usage),
            return_token_ids=bool(own.return_token_ids),
            readers=readers_code(route, swarm),
            choices=body.n or 1,
        )

    def _swarm(self, body: str | None, request: web.Request) -> SwarmReaders:
        header = request.headers.get("X-DSLM-Swarm")
        if body is not None and header is not None and body != header:
            raise BadRequest("X-DSLM-Swarm and 'dslm.swarm' name different swarms.", "dslm.swarm")
        return choose_swarm(self._view, header if body is None else body)

    def _sampling(self, body: CommonBody) -> Sampling:
        temperature = self._config.temperature if body.temperature is None else body.temperature
        return Sampling(
            temperature=temperature,
            top_k=max(0, body.top_k or 0),
            top_p=1.0 if body.top_p is None else max(_TOP_P_MIN, body.top_p),
            seed=self._rng.getrandbits(32) if body.seed is None else body.seed & (2**63 - 1),
            min_p=body.min_p or 0.0,
            repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            logit_bias=biases_of(body),
            logprobs=logprobs_of(body),
        )

    def _peer(self, name: str, swarm: str) -> PeerId:
        """The peer called `name`: a whole id, or the name or unique id prefix of a known peer."""
        try:
            return parse_peer_id(name)
        except ProtocolError:
            peers = self._view.peers(swarm).peers
        found = [peer.peer for peer in peers if peer.name == name or peer.peer.startswith(name)]
        if len(found) != 1:
            trouble = "is ambiguous" if found else "is not known"
            raise BadRequest(
                f"The node {name!r} {trouble} here. `dslm peers` lists them.", "dslm.node"
            )
        return PeerId(found[0])


def _message(body: MessageBody, path: str) -> ChatMessage:
    if body.function_call:
        raise UnsupportedParameter(
            "'function_call' is not supported: use 'tool_calls'.", f"{path}.function_call"
        )
    role = "system" if body.role == "developer" else body.role
    if body.content is None and role != "assistant":
        raise BadRequest(
            f"Invalid value for '{path}.content': expected text, got null.", f"{path}.content"
        )
    return ChatMessage(
        role,
        _content(body, f"{path}.content"),
        tuple(
            ToolCall(call.id, call.function.name, call.function.arguments)
            for call in body.tool_calls or ()
        ),
        body.tool_call_id or "",
        # Others' names are left out, as before: templates that know them are rare.
        (body.name or "") if role == "tool" else "",
    )


def _size(message: ChatMessage) -> int:
    calls = sum(len(call.name) + len(call.arguments.encode()) for call in message.tool_calls)
    return len(message.content.encode()) + calls


def _content(body: MessageBody, path: str) -> str:
    if body.content is None or isinstance(body.content, str):
        return body.content or ""
    for index, part in enumerate(body.content):
        if part.type != "text":
            raise UnsupportedParameter(
                f"Content of type {part.type!r} is not supported: text only.", f"{path}[{index}]"
            )
    return "\n".join(part.text or "" for part in body.content)


def _bare_prompt(prompt: str | tuple[object, ...]) -> str:
    if isinstance(prompt, tuple) and len(prompt) == 1:
        prompt = prompt[0] if isinstance(prompt[0], str) else prompt
    if not isinstance(prompt, str):
        raise UnsupportedParameter(
            "Give 'prompt' as one string: token ids and several prompts are not supported.",
            "prompt",
        )
    if not prompt:
        raise BadRequest("Invalid value for 'prompt': it is empty.", "prompt")
    return prompt


def _check_size(size: int, parameter: str) -> None:
    if size > limits.PROMPT_BYTES_MAX:
        raise PromptTooLong(
            f"This model's maximum context length is exceeded: the prompt has {size} bytes, and "
            f"no prompt may have more than {limits.PROMPT_BYTES_MAX}.",
            parameter,
        )


def _route(body: str | None, header: str | None, default: Route) -> Route:
    """The strictest route that the body or the header names; else the default."""
    named = [
        _one_route(name, where)
        for name, where in ((body, "dslm.route"), (header, "X-DSLM-Route"))
        if name is not None
    ]
    return min(named, key=_STRICTEST_FIRST.index) if named else default


def _one_route(name: str, where: str) -> Route:
    try:
        return Route(name)
    except ValueError as error:
        choices = ", ".join(_STRICTEST_FIRST)
        raise BadRequest(f"Invalid value for {where!r}: choose one of {choices}.", where) from error
