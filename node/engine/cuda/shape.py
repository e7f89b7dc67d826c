"""Which models the fused step can compute, and how much room it needs besides weights and pages.

Knows shapes only; imports no Triton, so that any machine can ask.
"""

from node.engine.config import LLAMA, LlamaConfig
from node.engine.cuda.layout import LOGITS_MAX, TOKENS_MAX
from node.engine.cuda.reasons import CudaUnfit

PARTS_MAX = 256
"""Blocks of attention times parts that there is room for."""
HEAD_COLUMNS = (16, 64)
"""Logits that the head computes at a time, for few rows and for many."""


def check_shape(config: LlamaConfig) -> None:
    """`CudaUnfit` unless the fused step can compute such a model."""
    if config.variant != LLAMA:
        raise CudaUnfit("the fused step knows plain Llamas only")
    if config.head_dimension not in {16, 32, 64, 128, 256}:
        raise CudaUnfit(f"head_dimension {config.head_dimension} is no power of two up to 256")
    widths = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads times head_dimension": config.heads * config.head_dimension,
    }
    for name, width in widths.items():
        if width % 32:
            raise CudaUnfit(f"{name} {width} is no multiple of 32")


def working_bytes(config: LlamaConfig, itemsize: int) -> int:
    """Bytes of the tensors of `Step`."""
    queries = config.heads * config.head_dimension
    rows = 2 * config.hidden_size + 2 * queries + config.intermediate_size
    blocks = -(-config.vocabulary_size // min(HEAD_COLUMNS))
    logits = LOGITS_MAX * (4 * config.vocabulary_size + 8 * blocks)
    return TOKENS_MAX * rows * itemsize + logits + 4 * PARTS_MAX * (queries + 2 * config.heads)
