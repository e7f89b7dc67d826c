"""What is read out of an ONNX file, and that a damaged one is called so."""

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from node.hosting import encoder_file
from node.hosting.encoder_file import BertWeights, read_bert
from protocols.errors import ModelFileError

DIMENSIONS, INNER = 4, 6
PRODUCTS = {
    "attention.self.query": (DIMENSIONS, DIMENSIONS),
    "attention.self.key": (DIMENSIONS, DIMENSIONS),
    "attention.self.value": (DIMENSIONS, DIMENSIONS),
    "attention.output.dense": (DIMENSIONS, DIMENSIONS),
    "intermediate.dense": (DIMENSIONS, INNER),
    "output.dense": (INNER, DIMENSIONS),
}


class File(msgspec.Struct):
    """A small file as the exporter writes it, and what is in it."""

    message: Any
    arrays: dict[str, NDArray[Any]]

    @property
    def data(self) -> bytes:
        data: bytes = self.message.SerializeToString()
        return data

    def add(self, name: str, array: NDArray[Any]) -> None:
        self.arrays[name] = array
        kind = {"float32": 1, "int8": 3}[array.dtype.name]
        self.message.graph.initializer.add(
            name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes()
        )


def small_file(layers: int = 2) -> File:
    rng = np.random.default_rng(1)
    file = File(encoder_file._model_class()(), {})

    def floats(name: str, *shape: int) -> None:
        file.add(name, rng.standard_normal(shape, np.float32))

    def bytes_of(name: str, *shape: int) -> None:
        file.add(name, rng.integers(-127, 128, shape, np.int8))

    node = file.message.graph.node
    front = "inner.embeddings."
    for name, rows in (("word", 9), ("position", 5)):
        bytes_of(f"{front}{name}_embeddings.weight_q", rows, DIMENSIONS)
        floats(f"{front}{name}_embeddings.weight_scale", rows, 1)
    floats(f"{front}token_type_embeddings.weight", 2, DIMENSIONS)
    inner = [f"inner.encoder.layer.{at}." for at in range(layers)]
    norms = [f"{one}{kind}" for one in inner for kind in ("attention.output.", "output.")]
    for name in (front, *norms):
        floats(f"{name}LayerNorm.weight", DIMENSIONS)
        floats(f"{name}LayerNorm.bias", DIMENSIONS)
        node.add(op_type="LayerNormalization").attribute.add(name="epsilon", f=0.5)
    for at, (prefix, (name, shape)) in enumerate(
        (prefix, one) for prefix in inner for one in PRODUCTS.items()
    ):
        floats(f"{prefix}{name}.bias", shape[1])
        bytes_of(f"val_{at}_q", *shape)
        floats(f"val_{at}_scale", 1, shape[1])
        node.add(op_type="MatMul", input=["x", f"val_{at}"], output=[f"product_{at}"])
        both = [f"product_{at}", f"{prefix}{name}.bias"]
        node.add(op_type="Add", input=both[:: 1 - 2 * (at % 2)], output=[f"sum_{at}"])
    return file


def test_all_weights_are_found_by_what_is_done_with_them() -> None:
    file = small_file()
    found, arrays = read_bert(file.data), file.arrays
    assert isinstance(found, BertWeights)
    assert (len(found.layers), found.epsilon) == (2, 0.5)
    front = "inner.embeddings."
    assert np.array_equal(found.words, arrays[f"{front}word_embeddings.weight_q"])
    assert np.array_equal(found.word_scales, arrays[f"{front}word_embeddings.weight_scale"])
    place = f"{front}position_embeddings.weight"
    positions = arrays[f"{place}_q"] * arrays[f"{place}_scale"]
    kinds = arrays[f"{front}token_type_embeddings.weight"]
    assert np.array_equal(found.positions, positions + kinds[0])
    layer, at = found.layers[1], len(PRODUCTS)
    parts = (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down)
    for number, (one, name) in enumerate(zip(parts, PRODUCTS, strict=True), at):
        wanted = arrays[f"val_{number}_q"] * arrays[f"val_{number}_scale"]
        assert np.array_equal(one.weight, wanted), name
        assert np.array_equal(one.bias, arrays[f"inner.encoder.layer.1.{name}.bias"])
    prefix = "inner.encoder.layer.1."
    assert np.array_equal(layer.attended.bias, arrays[f"{prefix}attention.output.LayerNorm.bias"])
    assert np.array_equal(layer.done.weight, arrays[f"{prefix}output.LayerNorm.weight"])


def test_cut_and_spoilt_files_are_called_damaged() -> None:
    data = small_file(1).data
    rng = np.random.default_rng(2)
    for _ in range(60):
        spoilt = bytearray(data[: rng.integers(len(data))])
        for at in rng.integers(0, len(spoilt) + 1, 3):
            spoilt[at : at + 1] = rng.bytes(1)
        with pytest.raises(ModelFileError, match="not as expected"):
            read_bert(bytes(spoilt))


@pytest.mark.parametrize("spoil", ["no layers", "another type", "no product", "norms", "size"])
def test_files_of_another_form_are_refused(spoil: str) -> None:
    file = small_file(0 if spoil == "no layers" else 1)
    graph = file.message.graph
    match spoil:
        case "another type":
            graph.initializer[0].data_type = 1
        case "no product":
            next(one for one in graph.node if one.op_type == "MatMul").op_type = "Gemm"
        case "norms":
            graph.node[0].attribute[0].f = 1e-12
        case "size":
            graph.initializer[0].dims[0] = 2**40
    with pytest.raises(ModelFileError, match="not as expected"):
        read_bert(file.data)
