"""Draws what the router confuses, and whether its probabilities mean what they say.

Knows scores and labels; must not know how they came about. Needs matplotlib, which nothing else
does: `pip install matplotlib`.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routing_data import DOMAINS, Floats

_NAMES = [
    name.replace("_", " ").replace("business", "bus.").replace("politics", "pol.")
    for name in DOMAINS
]


def draw(folder: Path, ours: Floats, theirs: Floats, labels: NDArray[np.intp]) -> None:
    """`router-confusion.png` and `router-reliability.png` in `folder`."""
    import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # type: ignore[import-not-found,unused-ignore]

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.9), sharey=True)
    for axis, scores, title in zip(
        axes, (theirs, ours), ("4 prototypes, cosine", "trained head"), strict=True
    ):
        shares = _confusion(scores.argmax(axis=1), labels)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row in range(8):
            for column in range(8):
                if shares[row, column] >= 0.005:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    text = f"{100 * shares[row, column]:.0f}"
                    axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks(range(8), _NAMES, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(8), _NAMES, fontsize=8)
        axis.set_title(f"{title} (%)", fontsize=10)
        axis.set_xlabel("chosen card", fontsize=9)
    axes[0].set_ylabel("the prompt's subject", fontsize=9)
    _save(figure, folder / "router-confusion.png")
    figure, axis = plt.subplots(figsize=(4.6, 4.2))
    chance, right = ours.max(axis=1), ours.argmax(axis=1) == labels
    edges = np.linspace(0, 1, 11)
    at = np.minimum((chance * 10).astype(int), 9)
    filled = [one for one in range(10) if (at == one).sum() >= 10]
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.plot(
        [chance[at == one].mean() for one in filled],
        [right[at == one].mean() for one in filled],
        "o-",
    )
    axis.bar(
        (edges[:-1] + edges[1:]) / 2,
        [(at == one).mean() for one in range(10)],
        width=0.08,
        alpha=0.25,
    )
    axis.set_xlabel("probability of the best card", fontsize=9)
    axis.set_ylabel("share right (bars: share of prompts)", fontsize=9)
    _save(figure, folder / "router-reliability.png")


def _confusion(chosen: NDArray[np.intp], labels: NDArray[np.intp]) -> NDArray[np.float64]:
    found = np.zeros((8, 8))
    np.add.at(found, (labels, chosen), 1)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _save(figure: object, path: Path) -> None:
    figure.tight_layout()  # type: ignore[attr-defined]
    figure.savefig(path, dpi=80, metadata={"Software": None})  # type: ignore[attr-defined]
