"""The sentence encoder: MiniLM in ONNX, by which prompts and specialists are compared.

Knows onnxruntime and mean pooling; must not know cards or routing. Implements
`coordinator.ports.PromptEncoder`.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from coordinator.ports import EncodedPrompt
from protocols.errors import ModelFileError

_TOKENS_MAX = 256
"""What all-MiniLM-L6-v2 was trained with; a longer text counts by its beginning."""
_PROMPT_TOKENS_MAX = 512
"""All that the model has positions for: the end of a long prompt may have another owner."""


class MiniLmEncoder:
    """Texts to directions, one text at a time.

    The int8 model scales its activations over everything that it is given at once, so that in a
    batch the vector of a text would depend on its neighbours and on padding. Alone, it depends on
    the text only.
    """

    def __init__(self, model: Path, tokenizer: Path, threads: int = 1) -> None:
        """Load both files (a second or so). `ModelFileError` if one is missing or damaged."""
        self._digest = _digest_of(model, tokenizer)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        # Both libraries raise classes of their own, straight below Exception, for a damaged file.
        except Exception as error:
            raise ModelFileError(
                f"The sentence encoder cannot be loaded: {str(error)[:200]}. Get it again."
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._inputs = {item.name for item in self._session.get_inputs()}
        self._turn = asyncio.Lock()

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of model and tokenizer, hex."""
        return self._digest

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
        columns = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feed = {
            name: np.array([column], dtype=np.int64)[:, kept]
            for name, column in columns.items()
            if name in self._inputs
        }
        hidden = np.asarray(self._session.run(None, feed)[0], dtype=np.float32)[0]
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


def _digest_of(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ModelFileError(
                f"The sentence encoder's file {path} cannot be read: {error.strerror}."
            ) from error
    return digest.hexdigest()
