"""How well the router chooses: scripts/bench routing --data DIR [--cache DIR] [--only ...].

Eight specialists of MMLU subjects, whose cards are made of dev and validation questions; prompts
are test questions without their choices, exact repeats left out. The baseline is what was measured
before anything was trained: four prototypes a card, the best cosine, made of the same questions and
run on the same prompts (our cards' examples are each question, and each with its choices). Three
heads, two of them trained without another tenth of the rows (their cards and the baseline's lack
these too); intervals are 95 % bootstraps over prompts of means over these three runs, differences
are paired. `routing_training` says what a head is trained on.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.routing.head import Head, fit_chance, shares
from coordinator.routing.verdict import FIT_MIN
from report import Row as Line
from report import print_report
from routing_cards import (
    BASELINE_PROTOTYPES,
    TrialCards,
    baseline_scores,
    by_domain,
    trial_cards,
)
from routing_composites import joined_lines
from routing_data import DOMAINS, Data, Floats, Vectors
from routing_joined import logits_of
from routing_measures import (
    Interval,
    auroc_intervals,
    bootstrap,
    calibration_error,
    false_positives,
    top,
)
from routing_noise import KINDS
from routing_outcomes import outcome_lines
from routing_pictures import draw
from routing_speed import speed_lines
from routing_training import (
    Labelled,
    Training,
    all_fit_features,
    labelled,
    load_training,
    train_head,
)
from train_router import add_arguments, open_encoder

SEEDS = (0, 1, 2)
ROBUST = 60
"""Prompts of each domain that are said otherwise."""
OWN_STYLE = 40
"""Prompts in its own style on a card, for prompts in other styles."""


@dataclass(frozen=True, slots=True)
class Run:
    """One head with its cards, and the baseline's cards of the same rows."""

    head: Head
    cards: TrialCards
    plain: TrialCards

    def ours(self, vectors: Floats) -> Floats:
        """Probabilities of the cards, [prompts, cards]."""
        return shares(logits_of(self.head, vectors, self.cards)[0])

    def theirs(self, vectors: Floats) -> Floats:
        """The baseline's cosines, [prompts, cards]."""
        return baseline_scores(vectors, self.plain.cards)

    def fits(self, vectors: Floats) -> NDArray[np.float64]:
        """The probability that any card fits, for each prompt."""
        features = all_fit_features(self.head, vectors, self.cards)
        return fit_chance(self.head, features).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Bench:
    """All that the parts of this benchmark share."""

    data: Data
    vectors: Vectors
    training: Training
    runs: tuple[Run, ...]
    test: Labelled

    @property
    def labels(self) -> NDArray[np.intp]:
        """The right card of each test prompt."""
        return np.array([DOMAINS.index(one.domain) for one in self.test.rows])


def make_run(training: Training, head: Head, more: dict[str, Floats] | None = None) -> Run:
    """Cards of all eight domains from the questions of `training`, and of `more` prompts."""
    examples = by_domain(training.questions.whole, training.questions.domains.tolist())
    for name, vectors in (more or {}).items():
        examples[name] = np.concatenate([examples[name], vectors])
    with_choices = by_domain(training.with_choices.whole, training.with_choices.domains.tolist())
    every = {name: np.concatenate([own, with_choices[name]]) for name, own in examples.items()}
    cards = trial_cards(every, training.described, training.encoder, head=head)
    plain = trial_cards(examples, training.described, training.encoder, BASELINE_PROTOTYPES)
    return Run(head, cards, plain)


def compare(name: str, ours: Interval, theirs: Interval, gain: Interval, target: str) -> Line:
    """A row whose target speaks of the paired difference; `target` begins with a number."""
    least = float(target.split(maxsplit=1)[0])
    met = gain.value >= least and gain.low > 0
    note = f"{ours} against {theirs}; difference {gain}"
    ratio = ours.value / theirs.value
    return Line(name, ours.value, "", "4 prototypes", ratio, f"+{target}", met, note)


def choice_lines(bench: Bench) -> list[Line]:
    """Top-1 and top-2 over all test questions, and whether probabilities mean what they say."""
    vectors, labels = bench.test.whole, bench.labels
    found = []
    for count, target in ((1, ".03 and above 0"), (2, ".02 and above 0")):
        ours = np.mean([top(run.ours(vectors), labels, count) for run in bench.runs], axis=0)
        theirs = np.mean([top(run.theirs(vectors), labels, count) for run in bench.runs], axis=0)
        gain = bootstrap(ours - theirs)
        rows = (bootstrap(ours), bootstrap(theirs), gain)
        found.append(compare(f"MMLU top-{count}", *rows, target))
        one, two, more = (_stratified(each, labels) for each in (ours, theirs, ours - theirs))
        found.append(compare(f"MMLU top-{count}, domains equal", one, two, more, target))
    chance = bench.runs[0].ours(vectors)
    right = top(chance, labels, 1)
    error = calibration_error(chance.max(axis=1).astype(np.float64), right)
    return [
        *found,
        Line("MMLU calibration error", error, "", note="of the best card's probability"),
    ]


def newcomer_lines(bench: Bench) -> list[Line]:
    """Recall of each domain when its card is new: head and metric never saw a row of it."""
    ours, theirs, each = [], [], []
    labels = bench.labels
    for at, name in enumerate(DOMAINS):
        vectors = bench.test.whole[labels == at]
        right = labels[labels == at]
        of_seeds, of_plain = [], []
        for seed in SEEDS:
            sampled = bench.training.sampled(seed)
            run = make_run(sampled, train_head(sampled.without(name), is_all_wanted=False))
            of_seeds.append(top(run.ours(vectors), right, 1))
            of_plain.append(top(run.theirs(vectors), right, 1))
        ours.append(np.mean(of_seeds, axis=0))
        theirs.append(np.mean(of_plain, axis=0))
        each.append(f"{name} {ours[-1].mean():.2f} ({theirs[-1].mean():.2f})")
    rng = np.random.default_rng(0)
    values = [_balanced(ours, None), _balanced(theirs, None)]
    drawn = []
    for _ in range(1_000):
        picks = [rng.integers(len(one), size=len(one)) for one in ours]
        drawn.append((_balanced(ours, picks), _balanced(theirs, picks)))
    low, high = np.quantile([one for one, _ in drawn], (0.025, 0.975))
    note = f"[{low:.3f}, {high:.3f}]; 4 prototypes {values[1]:.3f}; " + ", ".join(each)
    met = values[0] >= 0.83
    ratio = values[0] / values[1]
    return [
        Line("a card never seen: recall", values[0], "", "4 prototypes", ratio, ".83", met, note)
    ]


def stranger_lines(bench: Bench) -> list[Line]:
    """Prompts that no card is for, far and near, told from those of the eight domains."""
    far = bench.data.out_of_scope(["oos_test"])
    sets = (
        ("far", labelled(far, bench.vectors)),
        ("near", labelled(bench.data.near(), bench.vectors)),
    )
    found = []
    for name, strangers in sets:
        ours = [(run.fits(bench.test.whole), run.fits(strangers.whole)) for run in bench.runs]
        theirs = [
            (_best(run.theirs(bench.test.whole)), _best(run.theirs(strangers.whole)))
            for run in bench.runs
        ]
        line = compare(
            f"out of domain, {name}: AUROC", *auroc_intervals(ours, theirs), "0 and above 0"
        )
        found.append(line)
        passed = np.mean([false_positives(*pair) for pair in ours])
        before = np.mean([false_positives(*pair) for pair in theirs])
        kept = float(np.mean([(pair[0] >= FIT_MIN).mean() for pair in ours]))
        refused = float(np.mean([(pair[1] < FIT_MIN).mean() for pair in ours]))
        note = f"4 prototypes {before:.3f}; at {FIT_MIN}: {kept:.3f} kept, {refused:.3f} refused"
        found.append(
            Line(f"out of domain, {name}: passed at 95 % kept", float(passed), "", note=note)
        )
    return found


def composite_lines(bench: Bench) -> list[Line]:
    """Two test questions of different domains, one after the other, and lone ones."""
    trials = [(run.head, run.cards, run.theirs) for run in bench.runs]
    return joined_lines(trials, bench.test.rows, bench.vectors)


def robustness_lines(bench: Bench) -> list[Line]:
    """How often the choice (a card, or the base) stays when a prompt is said otherwise."""
    labels = bench.labels
    picked = np.concatenate([np.flatnonzero(labels == at)[:ROBUST] for at in range(8)])
    texts = [bench.test.rows[at].text for at in picked]
    run = bench.runs[0]
    before = _decisions(run, bench.test.whole[picked])
    kept, found = [], []
    for kind, change in KINDS.items():
        said = [change(text, random.Random(f"{kind}{text}")) for text in texts]
        changed = np.array([one != text for one, text in zip(said, texts, strict=True)])
        after = _decisions(run, bench.vectors.whole(said))
        same = (after == before)[changed].astype(np.float64)
        kept.append(same)
        found.append(
            Line(f"same choice: {kind}", float(same.mean()), "", note=f"{len(same)} prompts")
        )
    every = bootstrap(np.concatenate(kept))
    total = Line(
        "same choice: all", every.value, "", target=".95", met=every.value >= 0.95, note=str(every)
    )
    return [*found, total]


def style_lines(bench: Bench) -> list[Line]:
    """Prompts in styles unlike MMLU's, with cards that hold some in these styles or none."""
    prompts = labelled(bench.data.external(is_test=True), bench.vectors)
    labels = np.array([DOMAINS.index(one.domain) for one in prompts.rows])
    sets = np.array([one.subject for one in prompts.rows])
    own: dict[str, Floats] = {}
    for row, vector in zip(
        bench.training.external.rows, bench.training.external.whole, strict=True
    ):
        rows = own.setdefault(row.domain, np.zeros((0, vector.size), np.float32))
        if len(rows) < OWN_STYLE:
            own[row.domain] = np.concatenate([rows, vector[None]])
    plain = bench.runs[0]
    rich = make_run(bench.training, plain.head, own)
    found = []
    for name in dict.fromkeys(sets.tolist()):
        at = sets == name
        scores = [
            top(score(prompts.whole[at]), labels[at], 1).mean()
            for score in (rich.ours, rich.theirs, plain.ours, plain.theirs)
        ]
        note = (
            f"4 prototypes {scores[1]:.3f}; with cards of MMLU's style alone {scores[2]:.3f} "
            f"(4 prototypes {scores[3]:.3f})"
        )
        found.append(Line(f"own style on the card: {name}", float(scores[0]), "", note=note))
    return found


def main() -> int:
    """The report; 2 without data, 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--outcomes", type=Path, help="the specialists' items (specialists_items.npz)"
    )
    parser.add_argument("--pictures", type=Path, help="a folder for pictures (needs matplotlib)")
    parser.add_argument("--only", nargs="*", choices=[*_PARTS, "speed"], help="these parts only")
    chosen = parser.parse_args()
    if chosen.only == ["speed"]:
        return print_report("routing", speed_lines(open_encoder(chosen.models)))
    if chosen.data is None:
        print("--data or DSLM_DATA must name the folder with the data sets", file=sys.stderr)
        return 2
    vectors = Vectors(open_encoder(chosen.models), chosen.cache)
    bench = load(Data(Path(chosen.data)), vectors)
    found: list[Line] = []
    for name, part in _PARTS.items():
        if not chosen.only or name in chosen.only:
            found += part(bench)
            print(f"{name} done", file=sys.stderr, flush=True)
    if not chosen.only or "speed" in chosen.only:
        found += speed_lines(vectors.encoder)
    if chosen.outcomes is not None:
        found += outcome_lines(chosen.outcomes, Path(chosen.data), vectors.encoder)
    if chosen.pictures is not None:
        run = bench.runs[0]
        draw(
            chosen.pictures, run.ours(bench.test.whole), run.theirs(bench.test.whole), bench.labels
        )
    about = (f"{len(bench.test.rows):,} test prompts", f"encoder {vectors.encoder.digest[:16]}")
    return print_report("routing", found, about)


def load(data: Data, vectors: Vectors) -> Bench:
    """Everything trained, and the test prompts."""
    training = load_training(data, vectors)
    runs = []
    for seed in SEEDS:
        sampled = training.sampled(seed)
        runs.append(make_run(sampled, train_head(sampled)))
    rows = [one for one in data.mmlu(["test"]) if one.domain in DOMAINS]
    return Bench(data, vectors, training, tuple(runs), labelled(rows, vectors))


def _decisions(run: Run, vectors: Floats) -> NDArray[np.intp]:
    """The chosen card of each prompt, -1 for the base."""
    best = run.ours(vectors).argmax(axis=1)
    return np.where(run.fits(vectors) >= FIT_MIN, best, -1).astype(np.intp)


def _stratified(values: NDArray[np.float64], labels: NDArray[np.intp]) -> Interval:
    """The mean over domains, each resampled by itself."""
    rng = np.random.default_rng(0)
    groups = [values[labels == at] for at in range(len(DOMAINS))]
    drawn = [
        float(np.mean([one[rng.integers(len(one), size=len(one))].mean() for one in groups]))
        for _ in range(1_000)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(float(np.mean([one.mean() for one in groups])), float(low), float(high))


def _best(scores: Floats) -> NDArray[np.float64]:
    best: NDArray[np.float64] = scores.max(axis=1).astype(np.float64)
    return best


def _balanced(
    found: Sequence[NDArray[np.float64]], picks: Sequence[NDArray[np.int64]] | None
) -> float:
    each = [one[picks[at]] if picks else one for at, one in enumerate(found)]
    return float(np.mean([one.mean() for one in each]))


_PARTS: dict[str, Callable[[Bench], list[Line]]] = {
    "choice": choice_lines,
    "newcomer": newcomer_lines,
    "strangers": stranger_lines,
    "composites": composite_lines,
    "robustness": robustness_lines,
    "styles": style_lines,
}

if __name__ == "__main__":
    sys.exit(main())
