"""`/dslm/ask/1`: one streamed generation, asked by a client, answered token by token.

Knows the fields and their bounds; the order of messages is `protocols.ask`'s.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from protocols import limits

ShortText = Annotated[str, Meta(max_length=limits.TEXT_BYTES_MAX)]
Count = Annotated[int, Meta(ge=0, le=limits.TOKENS_MAX)]
Length = Annotated[int, Meta(ge=0, le=2**31)]
"""Tokens of a prompt or a context, which may be longer than any answer."""
Seconds = Annotated[float, Meta(ge=0, le=limits.DEADLINE_SECONDS_MAX)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
LOGPROB_MIN = -9_999.0
"""Stands for everything less likely: JSON has no infinity."""


class ToolCall(Struct, frozen=True):
    """A tool that an earlier turn called; `arguments` is a JSON object as text."""

    id: Annotated[str, Meta(max_length=256)]
    name: Annotated[str, Meta(max_length=256)]
    arguments: Annotated[str, Meta(max_length=limits.TOOLS_BYTES_MAX)]


class ChatMessage(Struct, frozen=True):
    """One turn of a conversation. `tool_call_id` and `name` say what a tool's turn answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Annotated[str, Meta(max_length=limits.PROMPT_BYTES_MAX)]
    tool_calls: Annotated[tuple[ToolCall, ...], Meta(max_length=limits.TOOL_CALLS_MAX)] = ()
    tool_call_id: Annotated[str, Meta(max_length=256)] = ""
    name: Annotated[str, Meta(max_length=256)] = ""


class Chat(Struct, frozen=True, tag="chat"):
    """A conversation; the serving peer applies the model's own chat template.

    `tools` is a JSON array as text: the tools that may be called, as OpenAI describes them.
    """

    messages: Annotated[
        tuple[ChatMessage, ...], Meta(min_length=1, max_length=limits.CHAT_MESSAGES_MAX)
    ]
    tools: Annotated[str, Meta(max_length=limits.TOOLS_BYTES_MAX)] = ""


class Text(Struct, frozen=True, tag="text"):
    """A bare prompt, continued without a template."""

    text: Annotated[str, Meta(max_length=limits.PROMPT_BYTES_MAX)]


Prompt = Chat | Text


class LogitBias(Struct, frozen=True):
    """What is added to one token's logit before anything else."""

    token: TokenId
    bias: Annotated[float, Meta(ge=-100, le=100)]


class Sampling(Struct, frozen=True):
    """How the next token is chosen from the logits.

    In this order: `logit_bias`; `repetition_penalty` (of what stands in prompt or answer);
    `frequency_penalty` and `presence_penalty` (of what stands in the answer, delivered ids
    included); then, unless `temperature` is 0 (greedy), temperature, `top_k`, `top_p` and `min_p`.
    A constraint comes before all of them.

    The random number of position p is a function of (`seed`, p) alone, so another peer that takes
    over at p draws the same one.

    `logprobs` asks for the likelihood of each token, and for that many of the likeliest beside it.
    """

    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    logit_bias: Annotated[tuple[LogitBias, ...], Meta(max_length=limits.LOGIT_BIASES_MAX)] = ()
    logprobs: Annotated[int, Meta(ge=0, le=limits.LOGPROBS_MAX)] | None = None


_ConstraintText = Annotated[str, Meta(min_length=1, max_length=limits.CONSTRAINT_BYTES_MAX)]


class JsonSchema(Struct, frozen=True, tag="json_schema"):
    """The answer is JSON that the schema (JSON as text) describes."""

    schema: _ConstraintText


class Grammar(Struct, frozen=True, tag="grammar"):
    """The answer follows a grammar in llguidance's dialect of Lark."""

    lark: _ConstraintText


class RegularExpression(Struct, frozen=True, tag="regex"):
    """The whole answer matches a regular expression, in the syntax of Rust's regex crate."""

    pattern: _ConstraintText


Constraint = JsonSchema | Grammar | RegularExpression


class Ask(Struct, frozen=True, tag="ask"):
    """Client, first message: please generate.

    `delivered` are the ids of this answer that the client already holds (from a peer that was
    lost): generation goes on at position `len(delivered)` as if it had never stopped.
    `max_tokens` counts the whole answer, delivered ids included; 0 means as many as fit.
    `budget` is the time left for the whole answer, in seconds. `tenant` tells apart those for whom
    one client asks: what one of them asked must not speed up what another one asks.
    `memory_at` is a peer that has read the beginning of this prompt with the same base: its keys
    and values may be fetched there. Whoever shows the `memory_ticket`, which the client made up
    for the steps of one task and tells trusted peers only, may fetch those of this prompt here.

    With `forced` ids the answer is given: nothing is chosen, but these ids come as `Tokens` with
    their likelihoods, and `Finished` says `length`. Then `delivered`, `stop` and `constraint` are
    empty. `on_base` asks the specialist's base, without its adapter.
    """

    request_id: Annotated[str, Meta(min_length=1, max_length=64)]
    attempt: Annotated[int, Meta(ge=0, le=1_000)]
    specialist: Annotated[str, Meta(max_length=96)]
    prompt: Prompt
    sampling: Sampling
    max_tokens: Count
    budget: Seconds
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=limits.STOP_STRING_BYTES_MAX)], ...],
        Meta(max_length=limits.STOP_STRINGS_MAX),
    ] = ()
    delivered: Annotated[tuple[TokenId, ...], Meta(max_length=limits.TOKENS_MAX)] = ()
    constraint: Constraint | None = None
    tenant: Annotated[str, Meta(max_length=32)] = ""
    memory_at: Annotated[str, Meta(max_length=128)] = ""
    memory_ticket: Annotated[str, Meta(max_length=64)] = ""
    forced: Annotated[tuple[TokenId, ...], Meta(max_length=limits.FORCED_TOKENS_MAX)] = ()
    on_base: bool = False


class Cancel(Struct, frozen=True, tag="cancel"):
    """Client, at any time after `Ask`: stop now and free everything."""


class Accepted(Struct, frozen=True, tag="accepted"):
    """Server, first message of a yes. `model_digest` names the weights that answer.

    `honours` names those features of the `Ask` that came after the protocol's first version and
    that this peer knows: one that does not name them would have left them out in silence.
    """

    prompt_tokens: Length
    context_length: Length
    model_digest: Annotated[str, Meta(max_length=64)]
    honours: Annotated[tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=32)] = ()


class Progress(Struct, frozen=True, tag="progress"):
    """Server, while no token is due yet: the peer lives. `ahead` counts earlier requests."""

    phase: Literal["queued", "prefill"]
    ahead: Count = 0


_Spelling = Annotated[bytes, Meta(max_length=limits.TOKEN_BYTES_MAX)]
_LogProbability = Annotated[float, Meta(ge=LOGPROB_MIN, le=0)]


class Likely(Struct, frozen=True):
    """A token that was likely, as the bytes that it adds to the text. `logprob` is in nats."""

    id: TokenId
    logprob: _LogProbability
    spelling: _Spelling


class Likelihood(Struct, frozen=True):
    """How likely the model found a token, and the likeliest ones in its place, likeliest first.

    As the model gave it: before constraint, bias, penalties and temperature.
    """

    logprob: _LogProbability
    spelling: _Spelling
    top: Annotated[tuple[Likely, ...], Meta(max_length=limits.LOGPROBS_MAX)] = ()


class Tokens(Struct, frozen=True, tag="tokens"):
    """Server: the next ids of the answer, the first of them at `position` (0-based).

    `text` is what these ids add to the visible answer; it can be empty while a character or a
    stop string is incomplete. `logprobs` has one entry for each id if the client asked for them,
    or gave the ids.
    """

    position: Count
    ids: Annotated[
        tuple[TokenId, ...], Meta(min_length=1, max_length=limits.TOKENS_PER_MESSAGE_MAX)
    ]
    text: Annotated[str, Meta(max_length=limits.PROMPT_BYTES_MAX)]
    logprobs: Annotated[tuple[Likelihood, ...], Meta(max_length=limits.TOKENS_PER_MESSAGE_MAX)] = ()


class Finished(Struct, frozen=True, tag="finished"):
    """Server, last message of a complete answer.

    `text` is what was held back until the end was sure. `completion_tokens` counts the whole
    answer, ids delivered by earlier peers included. `queue`, `prefill` and `decode` are seconds
    spent by this peer.

    Of the pages of keys and values of the prompt, `pages_reused` were not computed for this
    request; `pages_fetched` of them came from another peer, in `bytes_fetched` bytes.
    """

    reason: Literal["stop", "length"]
    text: Annotated[str, Meta(max_length=limits.PROMPT_BYTES_MAX)]
    prompt_tokens: Length
    completion_tokens: Count
    queue: Seconds = 0.0
    prefill: Seconds = 0.0
    decode: Seconds = 0.0
    pages_reused: Count = 0
    pages_fetched: Count = 0
    bytes_fetched: Annotated[int, Meta(ge=0, le=2**50)] = 0


class Refusal(Struct, frozen=True, tag="refused"):
    """Server, instead of or after `Accepted`: a typed no.

    `retry_after` (seconds) goes with `busy`; `limit` and `requested` (tokens) with `too_long`.
    """

    code: Literal["busy", "not_here", "too_long", "unsupported", "draining", "failed"]
    message: ShortText = ""
    retry_after: Seconds = 0.0
    limit: Length = 0
    requested: Length = 0


ClientMessage = Ask | Cancel
ServerMessage = Accepted | Progress | Tokens | Finished | Refusal
