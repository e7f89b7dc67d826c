"""What an `Ask` can want beyond the first version of the protocol, and who can be trusted with it.

Knows the fields of `Ask`; must not know how anything is done. Unknown fields are ignored, so a peer
of an older version would answer without them: `Accepted.honours` tells the client that it will not.
"""

from protocols.messages.ask import Ask, Chat, Sampling

PENALTIES = "penalties"
MIN_P = "min_p"
LOGIT_BIAS = "logit_bias"
LOGPROBS = "logprobs"
CONSTRAINT = "constraint"
TOOLS = "tools"
TENANT = "tenant"
FORCED = "forced"
BASE = "base"


def features_of(ask: Ask) -> tuple[str, ...]:
    """The features that `ask` needs, sorted; none for what every version can do."""
    wanted = {
        PENALTIES: has_penalties(ask.sampling),
        MIN_P: ask.sampling.min_p > 0,
        LOGIT_BIAS: bool(ask.sampling.logit_bias),
        LOGPROBS: ask.sampling.logprobs is not None,
        CONSTRAINT: ask.constraint is not None,
        TOOLS: isinstance(ask.prompt, Chat) and _has_tools(ask.prompt),
        TENANT: bool(ask.tenant),
        FORCED: bool(ask.forced),
        BASE: ask.on_base,
    }
    return tuple(sorted(name for name, is_wanted in wanted.items() if is_wanted))


def has_penalties(sampling: Sampling) -> bool:
    """Whether the tokens so far change what comes next."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


def _has_tools(chat: Chat) -> bool:
    return bool(chat.tools) or any(
        message.tool_calls or message.tool_call_id or message.name for message in chat.messages
    )
