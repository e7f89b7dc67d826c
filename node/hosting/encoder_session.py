"""The sentence encoder by onnxruntime, which computes in fp32 on any processor.

Knows onnxruntime; must not know tokenizers or what the states are for. It is the referee of every
other way to compute the same file.
"""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from protocols.errors import ModelFileError


class OnnxStates:
    """Token states of one text at a time."""

    def __init__(self, model: Path, threads: int = 1) -> None:
        """`ModelFileError` if the file is damaged."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
        # It raises classes of its own, straight below Exception, for a damaged file.
        except Exception as error:
            raise ModelFileError(
                f"The sentence encoder cannot be loaded: {str(error)[:200]}. Get it again."
            ) from error
        self._inputs = {item.name for item in self._session.get_inputs()}

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """`[tokens]` to `[tokens, dimensions]`."""
        columns = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        feed = {name: row[None] for name, row in columns.items() if name in self._inputs}
        found: NDArray[np.float32] = np.asarray(self._session.run(None, feed)[0], np.float32)[0]
        return found
