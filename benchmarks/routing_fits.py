"""Closed-form fits that need numpy alone: conditional and plain logistic regressions.

Knows arrays; must not know prompts or cards. Deterministic.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from routing_data import Floats


def conditional_logit(features: Floats, labels: NDArray[np.intp], ridge: float = 1e-3) -> Floats:
    """Weights for `[rows, cards, features]`, by Newton's method on the mean log-likelihood."""
    weights = np.zeros(features.shape[2])
    chosen = features[np.arange(len(labels)), labels]
    for _ in range(30):
        scores = features @ weights
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        chance = powers / powers.sum(axis=1, keepdims=True)
        mean = (chance[..., None] * features).sum(axis=1)
        spread = features - mean[:, None]
        gradient = (chosen - mean).mean(axis=0) - ridge * weights / 100
        curvature = np.einsum("rc,rcf,rcg->fg", chance, spread, spread) / len(labels)
        curvature += ridge / 100 * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights.astype(np.float32)


def logistic_regression(
    features: Floats, labels: NDArray[np.bool_], importance: Floats, ridge: float = 1e-3
) -> Floats:
    """Weights for `[rows, features]` and a constant last; rows count by `importance`."""
    centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    inputs = np.column_stack([(features - centre) / scale, np.ones(len(features))])
    weights = np.zeros(inputs.shape[1])
    share = importance / importance.sum()
    for _ in range(40):
        chance = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (share * (labels - chance)) - ridge * weights
        curvature = (inputs.T * (share * chance * (1 - chance))) @ inputs
        curvature += ridge * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    plain = weights[:-1] / scale
    return np.append(plain, weights[-1] - plain @ centre).astype(np.float32)


def against(positive: Floats, negative: Floats) -> Floats:
    """A logistic regression in which both sides weigh the same."""
    labels = np.arange(len(positive) + len(negative)) < len(positive)
    importance = np.where(labels, 1 / len(positive), 1 / len(negative))
    return logistic_regression(np.concatenate([positive, negative]), labels, importance)


def choice_weights(choices: Sequence[tuple[Floats, int]], ridge: float = 1e-2) -> Floats:
    """Weights [features] by which the right row of each `[rows, features]` is the likeliest.

    As `conditional_logit`, for choices among different numbers of rows.
    """
    every = np.concatenate([rows for rows, _ in choices])
    centre, scale = every.mean(axis=0), every.std(axis=0) + 1e-6
    scaled = [((rows - centre) / scale, right) for rows, right in choices]
    weights = np.zeros(every.shape[1])
    for _ in range(30):
        gradient, curvature = -ridge * weights, ridge * np.eye(len(weights))
        for rows, right in scaled:
            scores = rows @ weights
            powers = np.exp(scores - scores.max())
            chance = powers / powers.sum()
            mean = chance @ rows
            gradient = gradient + (rows[right] - mean) / len(scaled)
            spread = (rows.T * chance) @ rows - np.outer(mean, mean)
            curvature = curvature + spread / len(scaled)
        weights = weights + np.linalg.solve(curvature, gradient)
    return np.asarray(weights / scale, dtype=np.float32)
