"""A sentence encoder whose libraries' defects are errors about one text, and never the node's end.

Knows how `tokenizers` and `onnxruntime` fail; must not know what is encoded or why.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from coordinator.ports import EncodedPrompt, PromptEncoder
from node.hosting.panics import no_panic
from protocols.errors import DslmError, Unsupported


class ContainedEncoder:
    """As the `PromptEncoder` within, but all that it raises about a text is `Unsupported`.

    Strangers' texts are encoded here, of cards and domains. Both libraries are compiled code: one
    panics with a `BaseException`, which would end every task beside the one that asked.
    """

    def __init__(self, within: PromptEncoder) -> None:
        self._within = within

    def __repr__(self) -> str:
        return f"<ContainedEncoder of {self._within!r}>"

    @property
    def digest(self) -> str:
        """See `coordinator.ports.Encoder`."""
        return self._within.digest

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `coordinator.ports.Encoder`."""
        with _contained():
            return await self._within.encode(texts)

    async def encode_prompt(
        self, text: str, parts: Sequence[tuple[int, int]] = ()
    ) -> EncodedPrompt:
        """See `coordinator.ports.PromptEncoder`."""
        with _contained():
            return await self._within.encode_prompt(text, parts)


@contextmanager
def _contained() -> Iterator[None]:
    try:
        with no_panic():
            yield
    except DslmError:
        raise
    # onnxruntime has a class straight below Exception for each of its error codes.
    except Exception as error:
        raise Unsupported(
            f"The sentence encoder cannot take this text: {str(error)[:200]}"
        ) from error
