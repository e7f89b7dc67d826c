import numpy as np
import pytest
from numpy.typing import NDArray

from node.hosting.prototypes import make_prototypes, prototype_vector


def directions(count: int, seed: int, dimensions: int = 384) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, dimensions))
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


def test_one_vector_is_its_own_prototype_but_for_rounding() -> None:
    vector = directions(1, seed=1)
    (prototype,) = make_prototypes(vector, 1)
    assert len(prototype.vector) == 384
    meant = prototype_vector(prototype)
    assert meant.dtype == np.float32
    assert float(meant @ vector[0]) > 0.999
    assert abs(float(np.linalg.norm(meant)) - 1) < 0.01


def test_each_cluster_gets_a_prototype() -> None:
    centres = directions(3, seed=2)
    noise = np.random.default_rng(3).normal(size=(60, 384)).astype(np.float32) * 0.01
    vectors = centres[np.arange(60) % 3] + noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = np.stack([prototype_vector(p) for p in make_prototypes(vectors, 3)])
    assert ((centres @ found.T).max(axis=1) > 0.98).all()


def test_the_same_vectors_always_give_the_same_prototypes() -> None:
    vectors = directions(40, seed=4)
    assert make_prototypes(vectors, 5) == make_prototypes(vectors.copy(), 5)


def test_there_are_no_more_prototypes_than_distinct_vectors() -> None:
    vectors = np.repeat(directions(2, seed=5), 4, axis=0)
    assert len(make_prototypes(vectors, 8)) == 2
    opposite = np.concatenate([directions(1, seed=6), -directions(1, seed=6)])
    assert len(make_prototypes(opposite, 1)) == 1


def test_nothing_to_stand_for_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make_prototypes(directions(2, seed=1), 0)
    with pytest.raises(ValueError, match="row"):
        make_prototypes(np.empty((0, 384), dtype=np.float32), 1)
