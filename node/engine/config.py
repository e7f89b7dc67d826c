"""What makes one Llama-shaped model differ from another, as plain numbers.

Knows the shape of a decoder; must not know files, tensors or how it is computed.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How the rotary frequencies of a model are stretched beyond its first training length.

    `linear` divides all by `factor`. `llama3` divides those with long waves by `factor`, keeps
    those with short ones and blends between (Llama 3.1, section 3.4.2 of arXiv 2407.21783, with
    the constants of its reference code). `table` divides frequency i by `divisors[i]`.
    """

    kind: Literal["linear", "llama3", "table"]
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context_length: int = 8192
    divisors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The shape of a decoder with RMS norms, rotary positions, grouped queries and SwiGLU.

    `kv_heads` equal to `heads` is multi-head attention, 1 is multi-query attention.
    """

    vocabulary_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dimension: int
    context_length: int
    norm_epsilon: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    tied_embeddings: bool = True

    def __post_init__(self) -> None:
        """`ValueError`, naming the field, for a shape that cannot be computed."""
        for name in (
            "vocabulary_size",
            "hidden_size",
            "intermediate_size",
            "layers",
            "heads",
            "kv_heads",
            "head_dimension",
            "context_length",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.heads} query heads cannot share {self.kv_heads} key-value heads evenly"
            )
        if self.head_dimension % 2:
            raise ValueError(f"head_dimension is {self.head_dimension}; rotary needs it even")
        if self.norm_epsilon <= 0 or self.rope_theta <= 0:
            raise ValueError("norm_epsilon and rope_theta must be positive")

    @property
    def cache_values_per_token(self) -> int:
        """How many numbers the keys and values of one token are, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dimension

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every weight; matrices are `[out, in]`."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries = self.heads * self.head_dimension
        keys = self.kv_heads * self.head_dimension
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocabulary_size, hidden),
            "final_norm": (hidden,),
        }
        if not self.tied_embeddings:
            shapes["head"] = (self.vocabulary_size, hidden)
        for index in range(self.layers):
            layer = {
                "attention_norm": (hidden,),
                "query": (queries, hidden),
                "key": (keys, hidden),
                "value": (keys, hidden),
                "output": (hidden, queries),
                "feed_forward_norm": (hidden,),
                "gate": (inner, hidden),
                "up": (inner, hidden),
                "down": (hidden, inner),
            }
            shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
        return shapes

    @property
    def parameters(self) -> int:
        """How many weights there are; shared embeddings count once."""
        total = 0
        for shape in self.tensor_shapes().values():
            rows, *columns = shape
            total += rows * (columns[0] if columns else 1)
        return total
