"""Prompts of two domains: are they told from lone ones, cut in the right place, and owned by whom?

Knows heads with their cards, and test questions; must not know how a head is trained. The two that
are found are the best pair for both sides of the best cut, encoded apart, as the router does where
it cuts.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from coordinator.routing.chains import best_pairs, log_shares
from coordinator.routing.head import Head
from coordinator.routing.reading import Reading
from report import Row as Line
from routing_cards import TrialCards
from routing_data import DOMAINS, Floats, Row, Vectors, composites
from routing_joined import chances, logits_of, seam_of
from routing_measures import Array, auroc_intervals, bootstrap

JOINED = 150
LONE = 1_000
"""Prompts of each kind for a head."""
Trial = tuple[Head, TrialCards, Callable[[Floats], Floats]]
"""A head, its cards, and the baseline's scores of prompts' vectors."""


@dataclass(slots=True)
class _Tally:
    """One number for each joined prompt of all heads, but for `chances`: joined and lone ones'."""

    exact: list[bool] = field(default_factory=list)
    seams: list[bool] = field(default_factory=list)
    plain: list[bool] = field(default_factory=list)
    chances: list[tuple[Array, Array]] = field(default_factory=list)


def joined_lines(trials: Sequence[Trial], questions: Sequence[Row], vectors: Vectors) -> list[Line]:
    """Both domains found, and chains told from lone prompts; each head has prompts of its own."""
    tally = _Tally()
    for seed, trial in enumerate(trials):
        rows = composites(questions, JOINED, seed, (" ",))
        lone = random.Random(seed).sample(list(questions), LONE)
        _count(tally, trial, rows, lone, vectors)
    of_pairs = bootstrap(np.array(tally.exact, np.float64))
    of_chains = auroc_intervals(tally.chances, tally.chances)[0]
    cut = [f"{np.mean([(p >= at).mean() for p, _ in tally.chances]):.2f} of pairs and "
           f"{np.mean([(n >= at).mean() for _, n in tally.chances]):.2f} of lone prompts at {at}"
           for at in (0.5, 0.6, 0.8)]  # fmt: skip
    of_both = (
        f"{of_pairs}; cut in the right place {np.mean(tally.seams):.3f}; "
        f"best two by 4 prototypes {np.mean(tally.plain):.3f}"
    )
    of_cuts = f"{of_chains}; cut: {', '.join(cut)}"
    pair, chain = of_pairs.value, of_chains.value
    return [
        Line("two domains: both found", pair, "", target=".75", met=pair >= 0.75, note=of_both),
        Line("chain or single: AUROC", chain, "", target=".96", met=chain >= 0.96, note=of_cuts),
    ]


def _count(
    tally: _Tally, trial: Trial, rows: Sequence[Row], lone: Sequence[Row], vectors: Vectors
) -> None:
    head, cards, plain = trial
    joined = vectors.readings([one.text for one in rows])
    found = chances(head, joined, cards)
    wanted = [{DOMAINS.index(one.domain), DOMAINS.index(one.second)} for one in rows]
    owned = _owned(head, cards, joined, [cut for _, cut in found], vectors)
    tally.exact += [one == pair for one, pair in zip(owned, wanted, strict=True)]
    for row, read, (_, cut) in zip(rows, joined, found, strict=True):
        tally.seams.append(cut >= 0 and cut == seam_of(row, read))
    best = np.argsort(-plain(np.stack([one.whole for one in joined])), axis=1)[:, :2]
    tally.plain += [set(one.tolist()) == pair for one, pair in zip(best, wanted, strict=True)]
    others = chances(head, vectors.readings([one.text for one in lone]), cards)
    both = (np.array([chance for chance, _ in one]) for one in (found, others))
    tally.chances.append((next(both), next(both)))


def _owned(
    head: Head,
    cards: TrialCards,
    joined: Sequence[Reading],
    found: Sequence[int],
    vectors: Vectors,
) -> list[set[int]]:
    """The best two cards for each prompt: of its halves apart, or of the whole if it has no cut."""
    halves = [
        (read.text[: read.cuts[cut].at], read.text[read.cuts[cut].at :])
        if cut >= 0
        else (read.text, read.text)
        for read, cut in zip(joined, found, strict=True)
    ]
    before, behind = (
        log_shares(logits_of(head, vectors.whole([half[side] for half in halves]), cards)[0])
        for side in (0, 1)
    )
    return [set(one.tolist()) for one in best_pairs(before, behind)[1]]
