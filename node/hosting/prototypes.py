"""A few directions that stand for many example prompts, small enough to publish.

Knows unit vectors and rounding; must not know texts or encoders.
"""

import numpy as np
from numpy.typing import NDArray

from protocols.records import Prototype

_ROUNDS = 25
_SEED = 20_240_601


def make_prototypes_in(
    space: NDArray[np.float32], vectors: NDArray[np.float32], count: int
) -> tuple[Prototype, ...]:
    """Up to `count` prototypes: the means of those of `vectors` that lie together in `space`.

    Both have a row of unit length for each text. Where the space brings out what a text is about
    (`coordinator.routing.head.Head.project`), texts are grouped by subject and not by style.
    """
    centres = np.stack([prototype_vector(one) for one in make_prototypes(space, count)])
    nearest = (space @ centres.T).argmax(axis=1)
    groups = (vectors[nearest == at].astype(np.float64) for at in range(len(centres)))
    means = (group.sum(axis=0) for group in groups if len(group))
    return tuple(_rounded(mean / np.linalg.norm(mean)) for mean in means)


def make_prototypes(vectors: NDArray[np.float32], count: int) -> tuple[Prototype, ...]:
    """Up to `count` prototypes of `vectors` [texts, dimensions], whose rows have unit length.

    Spherical k-means (Dhillon and Modha, 2001), started as k-means++ from a fixed seed: the same
    vectors always give the same prototypes. Fewer than `count` come out when there are fewer
    distinct vectors.
    """
    if vectors.ndim != 2 or not len(vectors) or count < 1:
        raise ValueError("make_prototypes wants a row for each text and a count of at least 1")
    distinct = np.unique(vectors.astype(np.float64), axis=0)
    centres = _first_centres(distinct, min(count, len(distinct)))
    for _ in range(_ROUNDS):
        nearest = (distinct @ centres.T).argmax(axis=1)
        moved = np.stack(
            [_direction(distinct[nearest == i], centres[i]) for i in range(len(centres))]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    return tuple(_rounded(centre) for centre in centres)


def prototype_vector(prototype: Prototype) -> NDArray[np.float32]:
    """The direction that a prototype stands for, of about unit length."""
    return np.frombuffer(prototype.vector, dtype=np.int8) * np.float32(prototype.scale)


def _first_centres(vectors: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """k-means++: each next centre is drawn in proportion to its distance from those so far."""
    rng = np.random.default_rng(_SEED)
    chosen = [int(rng.integers(len(vectors)))]
    while len(chosen) < count:
        distance = np.clip(1 - (vectors @ vectors[chosen].T).max(axis=1), 0, None)
        distance[chosen] = 0
        if distance.sum() == 0:
            break
        chosen.append(int(rng.choice(len(vectors), p=distance / distance.sum())))
    return vectors[chosen]


def _direction(members: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of `members` at unit length; a cluster that lost all members stays where it was."""
    total = members.sum(axis=0)
    length = float(np.linalg.norm(total))
    return total / length if length > 0 else before


def _rounded(direction: NDArray[np.float64]) -> Prototype:
    scale = float(np.abs(direction).max()) / 127
    values = np.rint(direction / scale).astype(np.int8)
    return Prototype(vector=values.tobytes(), scale=scale)
