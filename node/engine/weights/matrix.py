"""A weight matrix in memory, whatever it is held in: multiply rows by it, take rows of it.

Knows dense floats and the referee of packed ones; `int8` and `int4` have the fast kernels.
"""

from typing import Protocol

from torch import Tensor
from torch.nn.functional import linear as linear_product

from node.engine.linear import linear
from node.engine.weights.packings import Packed, select, tensors_of


class Matrix(Protocol):
    """`[out, in]`. Rows that go in and come out are of the model's activation type."""

    @property
    def size(self) -> int:
        """Bytes held."""
        ...

    def multiply(self, rows: Tensor) -> Tensor:
        """`rows` [tokens, in] times this, transposed: `[tokens, out]`."""
        ...


class Table(Matrix, Protocol):
    """A matrix that is also looked into row by row: the embedding, which may be the head too."""

    def gather(self, index: Tensor) -> Tensor:
        """The rows `index` [tokens]: `[tokens, in]`."""
        ...


class DenseMatrix:
    """Floats of the activation type."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    @property
    def size(self) -> int:
        """Bytes held."""
        return self.weight.nbytes

    def multiply(self, rows: Tensor) -> Tensor:
        """See `Matrix`."""
        return linear(rows, self.weight)

    def gather(self, index: Tensor) -> Tensor:
        """See `Table`."""
        return self.weight[index]


class RefereeMatrix:
    """Packed, and computed by making fp32 numbers of it for each product: slow and beyond doubt.

    What the fast kernels are measured against. In fp32 its products are those of the dequantised
    matrix, bit for bit.
    """

    def __init__(self, packed: Packed) -> None:
        self._packed = packed

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for tensor in tensors_of(self._packed))

    def multiply(self, rows: Tensor) -> Tensor:
        """See `Matrix`."""
        return linear_product(rows.float(), self._packed.dequantised()).to(rows.dtype)

    def gather(self, index: Tensor) -> Tensor:
        """See `Table`."""
        return select(self._packed, index).dequantised()
