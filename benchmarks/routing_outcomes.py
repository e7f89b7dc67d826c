"""What routing gains in the end: the specialists' own losses on the prompts that they were given.

Knows a table of losses and the router's choices; must not know how the losses were measured. The
table is an npz: `prompts` [n] texts, `specialists` [m] names ending in `base` for the plain base,
`domains` [n] names of the right specialists, `nats` [n, m] for each token of the true answer.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator.routing.verdict import FIT_MIN
from report import Row as Line
from routing_data import DOMAINS, Floats, Vectors
from routing_measures import bootstrap


class Chooser(Protocol):
    """What a run of the benchmark offers."""

    def ours(self, vectors: Floats) -> Floats:
        """Probabilities of the cards, [prompts, cards]."""
        ...

    def fits(self, vectors: Floats) -> NDArray[np.float64]:
        """The probability that any card fits, [prompts]."""
        ...


def outcome_lines(path: Path, run: Chooser, vectors: Vectors) -> list[Line]:
    """The share of what the right label gains over the base that the router's choice gains."""
    with np.load(path, allow_pickle=False) as found:
        prompts, nats = found["prompts"].tolist(), found["nats"].astype(np.float64)
        names, labels = found["specialists"].tolist(), found["domains"].tolist()
    column = {name: at for at, name in enumerate(names)}
    base = next(at for at, name in enumerate(names) if name.endswith("base"))
    encoded = vectors.whole(prompts)
    chosen = run.ours(encoded).argmax(axis=1)
    fits = run.fits(encoded) >= FIT_MIN
    picked = [
        column.get(DOMAINS[at], base) if is_fit else base
        for at, is_fit in zip(chosen.tolist(), fits.tolist(), strict=True)
    ]
    rows = np.arange(len(prompts))
    of_base = nats[:, base]
    of_oracle = nats[rows, [column.get(name, base) for name in labels]]
    routed = nats[rows, picked]
    recovered = float((of_base - routed).sum() / (of_base - of_oracle).sum())
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(1_000):
        at = rng.integers(len(rows), size=len(rows))
        drawn.append((of_base - routed)[at].sum() / (of_base - of_oracle)[at].sum())
    low, high = np.quantile(drawn, (0.025, 0.975))
    used = float(np.mean([one != base for one in picked]))
    note = f"[{low:.3f}, {high:.3f}]; nats: base {bootstrap(of_base)}, routed {bootstrap(routed)}"
    return [
        Line(
            "gap recovered",
            recovered,
            "",
            "oracle label",
            recovered,
            ".92",
            recovered >= 0.92,
            note,
        ),
        Line("specialists a prompt", used, "", target="1.15", met=used <= 1.15),
    ]
