"""Carries out a recipe: trains, chooses on validation, measures on test, saves with a card.

Knows the steps; must not know the command line or which settings are good.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.training.domains.domain import Domain
from node.training.export import round_to_bytes, save_adapter
from node.training.fit import Settings
from node.training.low_rank import LowRankParameters
from node.training.probe import probe_digest
from node.training.recipes.bench import Bench, mean_of
from node.training.recipes.card import Score, write_card
from node.training.recipes.plans import plan_shares
from node.training.recipes.settings import Recipe
from node.training.recipes.trainings import Trainings
from protocols.errors import UserError

LICENCE = "Apache-2.0"
_ALIKE = 0.0005
"""Nats on validation within which the share of exact answers decides, where there are such."""
_COUNTED_MAX = 4


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """An adapter, with the single trainings by seed, and a few words on how it was chosen."""

    adapter: LowRankParameters
    singles: Mapping[int, LowRankParameters]
    how: str


@dataclass(frozen=True, slots=True)
class Made:
    """An adapter that was chosen: its nats per answer token on validation and on test.

    `accuracy` where answers are chosen among a few, `exact` where they end in a number, `plans`
    for the planning model, as `plan_shares`.
    """

    folder: Path
    how: str
    validation: float
    test: float
    accuracy: float | None = None
    exact: float | None = None
    plans: Mapping[str, Mapping[str, float]] | None = None


def run(recipe: Recipe, domain: Domain, trainings: Trainings, out: Path) -> tuple[Chosen, Made]:
    """Train `recipe` on `domain` and save the adapter and its card into the folder `out`.

    `UserError` when there was no time for a single training.
    """
    bench = trainings.bench
    chosen = choose(recipe, domain, trainings)
    save_adapter(
        out,
        chosen.adapter,
        base_digest=bench.digest,
        licence=LICENCE,
        invocation=bench.form.header if recipe.settings.activated else (),
    )
    made = _measured(recipe, domain, bench, chosen, out)
    write_card(out, recipe.name, _scores(domain, made))
    return chosen, made


def choose(recipe: Recipe, domain: Domain, trainings: Trainings) -> Chosen:
    """What is best on validation: a single training, or a mean of the first few, or of all."""
    used = recipe.settings
    singles = trainings.adapters(recipe, domain)
    if not singles:
        raise UserError(f"There was no time to train {recipe.name}.")
    options = {f"seed {seed}": adapter for seed, adapter in singles.items()}
    trained = list(singles.values())
    for count in range(2, len(trained) + 1):
        options[f"mean of {count}"] = _mean(trained[:count])
    how = _best(domain, trainings, options, used)
    return Chosen(options[how], singles, f"{how}, {used.epochs} epochs, {used.dropped} out")


def _best(
    domain: Domain, trainings: Trainings, options: Mapping[str, LowRankParameters], used: Settings
) -> str:
    bench = trainings.bench
    if len(options) == 1:
        return next(iter(options))
    nats = {name: _nats(domain, bench, adapter, used) for name, adapter in options.items()}
    for name, value in nats.items():
        trainings.say(f"{domain.name}: validation {value:.4f}, {name}")
    order = sorted(options, key=lambda name: nats[name])
    alike = [name for name in order if nats[name] <= nats[order[0]] + _ALIKE][:_COUNTED_MAX]
    if domain.name != "math" or len(alike) == 1:
        return order[0]
    exact = {
        name: float(
            bench.is_exact(options[name], domain.validation, activated=used.activated).mean()
        )
        for name in alike
    }
    trainings.say(f"{domain.name}: exact on validation {exact}")
    return max(alike, key=lambda name: exact[name])


def _mean(adapters: list[LowRankParameters]) -> LowRankParameters:
    mean = mean_of(adapters)
    round_to_bytes(mean)
    return mean


def _nats(domain: Domain, bench: Bench, adapter: LowRankParameters, used: Settings) -> float:
    scores = bench.score(adapter, domain.validation, domain.candidates, activated=used.activated)
    return scores.per_token


def _measured(recipe: Recipe, domain: Domain, bench: Bench, chosen: Chosen, out: Path) -> Made:
    adapter, activated = chosen.adapter, recipe.settings.activated
    validation = _nats(domain, bench, adapter, recipe.settings)
    if not domain.test:
        return Made(out, chosen.how, validation, float("nan"))
    test = bench.score(adapter, domain.test, domain.candidates, activated=activated)
    accuracy = exact = plans = None
    if domain.candidates:
        right = [domain.candidates.index(example.answer) for example in domain.test]
        accuracy = float((test.chosen == right).mean())
    if domain.name == "math":
        exact = float(bench.is_exact(adapter, domain.test, activated=activated).mean())
    if domain.name == "planner":
        answers = bench.answers(adapter, domain.test, activated=activated)
        plans = plan_shares(domain.test, answers)
    return Made(out, chosen.how, validation, test.per_token, accuracy, exact, plans)


def _scores(domain: Domain, made: Made) -> list[Score]:
    measured = [
        ("nats per answer token", made.test),
        ("accuracy", made.accuracy),
        ("exact match", made.exact),
        ("right plans", made.plans["all"]["whole"] if made.plans else None),
    ]
    digest = probe_digest(domain.test)
    return [
        Score(f"{domain.name} test", metric, value, len(domain.test), digest)
        for metric, value in measured
        if value is not None and domain.test
    ]
