"""The sentence encoder: MiniLM, by which prompts and specialists are compared.

Knows tokens, mean pooling and who can compute the model; must not know cards or routing. Implements
`coordinator.ports.PromptEncoder`.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from coordinator.ports import EncodedPrompt
from node.hosting.fetch import MINILM
from protocols.errors import ModelFileError

_TOKENS_MAX = 256
"""What all-MiniLM-L6-v2 was trained with; a longer text counts by its beginning."""
_PROMPT_TOKENS_MAX = 512
"""All that the model has positions for: the end of a long prompt may have another owner."""
_HEADS = 12
"""Of MiniLM-L6; its file does not say it."""
_ANY_TEXT = (101, 102)
"""The tokens of an empty text: torch has to show that it can compute them."""
Runtime = Literal["auto", "onnx"]
States = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""`[tokens]` of one text to their vectors, `[tokens, dimensions]`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Model:
    """Who computes; `about` is for people."""

    states: States
    about: str


class MiniLmEncoder:
    """Texts to directions, one text at a time.

    The vector of a text must not depend on neighbours in a batch, nor on padding.

    Where the processor multiplies in bf16 torch computes the file that dslm uses: three to five
    times as fast, in less memory, and its directions have cosines of .9999 with those of
    onnxruntime, which computes everything else. The digest is the same.
    """

    def __init__(
        self, model: Path, tokenizer: Path, threads: int = 1, runtime: Runtime = "auto"
    ) -> None:
        """Load both files (a second or so). `ModelFileError` if one is missing or damaged.

        `auto` may import torch, which takes a second or two where nothing else did it.
        """
        data = _read(model)
        digests = [hashlib.sha256(one).digest() for one in (data, _read(tokenizer))]
        self._digest = hashlib.sha256(b"".join(digests)).hexdigest()
        is_known = digests[0].hex() == MINILM.sha256
        quick = _by_torch(data, threads) if is_known and runtime == "auto" else None
        self._model = quick or _by_onnx(model, threads)
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        # It raises a class of its own, straight below Exception, for a damaged file.
        except Exception as error:
            raise ModelFileError(
                f"The sentence encoder cannot be loaded: {str(error)[:200]}. Get it again."
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._turn = asyncio.Lock()

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of model and tokenizer, hex."""
        return self._digest

    @property
    def about(self) -> str:
        """Who computes it, for people."""
        return self._model.about

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`[texts, dimensions]`, rows of unit length; computed in a worker thread, in turn."""
        if not texts:
            raise ValueError("there is nothing to encode")
        async with self._turn:
            return await asyncio.to_thread(self._encode_all, tuple(texts))

    async def encode_prompt(
        self, text: str, parts: Sequence[tuple[int, int]] = ()
    ) -> EncodedPrompt:
        """`text` in one pass; each part (characters, begin and end) is pooled from its own tokens.

        A part that has no token, being blank or behind the bound on length, is a row of zeros.
        """
        async with self._turn:
            return await asyncio.to_thread(
                self._encode_prompt, text, tuple(parts), _PROMPT_TOKENS_MAX
            )

    def _encode_all(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self._encode_prompt(text, (), _TOKENS_MAX).whole for text in texts])

    def _encode_prompt(
        self, text: str, parts: Sequence[tuple[int, int]], tokens_max: int
    ) -> EncodedPrompt:
        """Means of token vectors, at unit length; without padding every token counts."""
        encoding = self._tokenizer.encode(text)
        kept = [*range(min(len(encoding.ids), tokens_max) - 1), len(encoding.ids) - 1]
        hidden = self._model.states(np.array(encoding.ids, np.int64)[kept])
        whole = _direction(hidden)
        if not parts:
            return EncodedPrompt(whole, np.zeros((0, whole.size), np.float32))
        begins, ends = np.array(encoding.offsets)[kept].T
        rows = [hidden[(begins < end) & (ends > begin) & (begins < ends)] for begin, end in parts]
        return EncodedPrompt(whole, np.stack([_direction(row) for row in rows]))


def _direction(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the rows at unit length; zeros where there are none."""
    if not len(hidden):
        return np.zeros(hidden.shape[1], np.float32)
    mean: NDArray[np.float32] = hidden.mean(axis=0)
    return mean / np.float32(max(float(np.linalg.norm(mean)), 1e-12))


def _by_torch(data: bytes, threads: int) -> _Model | None:
    """None where the processor has no bf16, so that onnxruntime is as fast, or torch fails."""
    # Here, because importing torch takes a while: who needs one vector does better without.
    from node.hosting.bert import bf16_bert  # noqa: PLC0415
    from node.hosting.encoder_file import read_bert  # noqa: PLC0415

    try:
        states = bf16_bert(lambda: read_bert(data), _HEADS, threads)
        if states is None or not np.isfinite(states(np.array(_ANY_TEXT, np.int64))).all():
            return None
    # Operators that are no part of torch's promises: whatever goes wrong, onnxruntime can do it.
    except (RuntimeError, AttributeError, TypeError, ValueError, ModelFileError) as error:
        _log.info("the sentence encoder is not computed by torch: %s", error)
        return None
    return _Model(states, "torch, bf16")


def _by_onnx(model: Path, threads: int) -> _Model:
    # Here, because it takes memory, and most processors of today do without.
    from node.hosting.encoder_session import OnnxStates  # noqa: PLC0415

    return _Model(OnnxStates(model, threads), "onnxruntime, fp32")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"The sentence encoder's file {path} cannot be read: {error.strerror}."
        ) from error
