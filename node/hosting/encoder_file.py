"""Reads the weights of the sentence encoder out of its ONNX file.

Knows as much of ONNX's form as that takes (onnx.proto: the numbers of fields are its own) and how
the file that dslm uses keeps weights; must not know who computes with them. Only a file whose
digest is known is read here; what is read is checked all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from google.protobuf import (  # type: ignore[import-untyped,unused-ignore]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import NDArray

from protocols.errors import ModelFileError

Floats = NDArray[np.float32]
_Number = TypeVar("_Number", np.int8, np.float32)
_FLOAT, _TEXT, _BYTES, _INTEGER = 2, 9, 12, 3
"""Types of fields, as protobuf numbers them."""
_FORM: Mapping[str, tuple[tuple[str, int, int | str, bool], ...]] = {
    "Model": (("graph", 7, "Graph", False),),
    "Graph": (("node", 1, "Node", True), ("initializer", 5, "Tensor", True)),
    "Node": (
        ("input", 1, _TEXT, True),
        ("output", 2, _TEXT, True),
        ("op_type", 4, _TEXT, False),
        ("attribute", 5, "Attribute", True),
    ),
    "Attribute": (("name", 1, _TEXT, False), ("f", 2, _FLOAT, False)),
    "Tensor": (
        ("dims", 1, _INTEGER, True),
        ("data_type", 2, _INTEGER, False),
        ("name", 8, _TEXT, False),
        ("raw_data", 9, _BYTES, False),
    ),
}
"""Of each message the fields that are looked at: name, number, type, whether there are many."""
_TYPES: Mapping[int, type[np.generic]] = {1: np.float32, 3: np.int8}
_LAYERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Affine:
    """`x @ weight + bias`: [inputs, outputs] and [outputs]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Norm:
    """Weight and bias of a layer norm, each `[dimensions]`."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class BertLayer:
    """One layer of BERT: attention, its norm, the two halves of the rest, and their norm."""

    query: Affine
    key: Affine
    value: Affine
    output: Affine
    attended: Norm
    up: Affine
    down: Affine
    done: Norm


@dataclass(frozen=True, slots=True)
class BertWeights:
    """BERT (Devlin et al. 2018) without pooler; vectors of words are `words * word_scales`."""

    words: NDArray[np.int8] | Floats
    """[vocabulary, dimensions]"""
    word_scales: Floats
    """[vocabulary, 1]"""
    positions: Floats
    """[positions, dimensions]; the vector of the first kind of token is in them."""
    norm: Norm
    layers: tuple[BertLayer, ...]
    epsilon: float
    """Of all norms."""


def read_bert(data: bytes) -> BertWeights:
    """The weights in an ONNX file's bytes; `ModelFileError` if they are not as they should be."""
    message = _model_class()()
    try:
        message.ParseFromString(data)
        return _Graph(message.graph).bert()
    except (DecodeError, LookupError, ValueError) as error:
        raise ModelFileError(f"The sentence encoder's file is not as expected: {error}") from error


class _Graph:
    """An ONNX graph's arrays, by name, and who multiplies with which."""

    def __init__(self, graph: object) -> None:
        nodes = list(graph.node)  # type: ignore[attr-defined]
        self._tensors = {one.name: one for one in graph.initializer}  # type: ignore[attr-defined]
        self._makers = {name: node for node in nodes for name in node.output}
        self._adders = {
            name: node for node in nodes if node.op_type == "Add" for name in node.input
        }
        epsilons = {
            attribute.f
            for node in nodes
            if node.op_type == "LayerNormalization"
            for attribute in node.attribute
            if attribute.name == "epsilon"
        }
        if len(epsilons) != 1:
            raise ValueError("its layer norms differ")
        self._epsilon = float(epsilons.pop())

    def bert(self) -> BertWeights:
        """All of it."""
        front = "inner.embeddings."
        word = f"{front}word_embeddings.weight"
        kinds = self._floats(f"{front}token_type_embeddings.weight")
        count = 0
        while self._prefix(count) + "output.dense.bias" in self._tensors and count < _LAYERS_MAX:
            count += 1
        if not count:
            raise ValueError("it has no layers")
        return BertWeights(
            words=self._array(f"{word}_q", np.int8),
            word_scales=self._floats(f"{word}_scale"),
            positions=self._weight(f"{front}position_embeddings.weight") + kinds[0],
            norm=self._norm(front),
            layers=tuple(self._layer(self._prefix(at)) for at in range(count)),
            epsilon=self._epsilon,
        )

    def _prefix(self, layer: int) -> str:
        return f"inner.encoder.layer.{layer}."

    def _layer(self, prefix: str) -> BertLayer:
        return BertLayer(
            query=self._affine(f"{prefix}attention.self.query.bias"),
            key=self._affine(f"{prefix}attention.self.key.bias"),
            value=self._affine(f"{prefix}attention.self.value.bias"),
            output=self._affine(f"{prefix}attention.output.dense.bias"),
            attended=self._norm(f"{prefix}attention.output."),
            up=self._affine(f"{prefix}intermediate.dense.bias"),
            down=self._affine(f"{prefix}output.dense.bias"),
            done=self._norm(f"{prefix}output."),
        )

    def _norm(self, prefix: str) -> Norm:
        names = (f"{prefix}LayerNorm.weight", f"{prefix}LayerNorm.bias")
        return Norm(*(self._floats(name) for name in names))

    def _affine(self, bias: str) -> Affine:
        """Weights have no names of their own: the bias is added to what they are multiplied to."""
        added = self._adders[bias]
        (product,) = [name for name in added.input if name != bias]
        maker = self._makers[product]
        if maker.op_type != "MatMul":
            raise ValueError(f"{bias} is added to no product")
        return Affine(self._weight(maker.input[1]), self._floats(bias))

    def _weight(self, name: str) -> Floats:
        """What is kept in 8 bits, with a scale for each row or column."""
        scaled: Floats = self._array(f"{name}_q", np.int8) * self._floats(f"{name}_scale")
        return scaled

    def _floats(self, name: str) -> Floats:
        return self._array(name, np.float32)

    def _array(self, name: str, kind: type[_Number]) -> NDArray[_Number]:
        tensor = self._tensors[name]
        if _TYPES.get(tensor.data_type) is not kind:
            raise ValueError(f"{name} is of another type")
        return np.frombuffer(tensor.raw_data, kind).reshape(tuple(tensor.dims))


def _model_class() -> type:
    """The message `Model`, in a pool of its own; fields that `_FORM` does not name are skipped."""
    file = descriptor_pb2.FileDescriptorProto(name="encoder.proto", package="dslm", syntax="proto2")
    for message, fields in _FORM.items():
        described = file.message_type.add(name=message)
        for name, number, kind, is_many in fields:
            field = described.field.add(name=name, number=number, label=3 if is_many else 1)
            if isinstance(kind, str):
                field.type, field.type_name = 11, f".dslm.{kind}"  # type: ignore[assignment,unused-ignore]
            else:
                field.type = kind  # type: ignore[assignment,unused-ignore]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type = message_factory.GetMessageClass(pool.FindMessageTypeByName("dslm.Model"))
    return found
