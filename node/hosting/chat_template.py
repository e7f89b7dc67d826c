"""A model's chat template: from a conversation to the one text the model was trained on.

Knows Jinja as `transformers` sets it up, in a sandbox (templates come with models, from
strangers); must not know tokens.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from protocols.errors import ModelFileError, Unsupported
from protocols.messages.ask import ChatMessage

# What a template can raise besides its own errors when a conversation is not as it expects.
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


class ChatTemplate:
    """A compiled template. Rendering is a pure function but for templates that ask for the date."""

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`special_tokens` are texts under the names `bos_token`, `eos_token` and so on."""
        self._special_tokens = dict(special_tokens)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            optimized=False,
            finalize=_as_it_is,
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda pattern: now().strftime(pattern)
        try:
            self._template = environment.from_string(source)
        # A number with thousands of digits is a ValueError, brackets a thousand deep the others.
        except (jinja2.TemplateError, ValueError, RecursionError, MemoryError) as error:
            raise ModelFileError(
                f"The model's chat template is damaged: {str(error)[:200]}."
            ) from error

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """The conversation up to where the assistant speaks next.

        `Unsupported` when the template refuses it, for instance for two turns of one role.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(
                messages=turns, add_generation_prompt=True, **self._special_tokens
            )
        except _RENDERING_FAULTS as error:
            raise Unsupported(
                f"The model's chat template cannot take this conversation: {str(error)[:200]}"
            ) from error


@jinja2.pass_context
def _as_it_is(_context: jinja2.runtime.Context, value: object) -> object:
    """Wanting a context keeps Jinja from computing constants while it compiles: `10 ** 10 ** 9`
    would stop a node from starting.
    """
    return value


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
