"""Carries out a recipe: trains, chooses on validation, measures on test, saves with a card.

Knows the steps; must not know the command line or which settings are good.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.training.domains.domain import Domain
from node.training.examples import TokenRow
from node.training.export import round_to_bytes, save_adapter
from node.training.fit import Progress
from node.training.low_rank import LowRankParameters
from node.training.probe import probe_digest
from node.training.recipes.bench import LONGEST, Bench, mean_of
from node.training.recipes.card import Score, write_card
from node.training.recipes.settings import Recipe

LICENCE = "Apache-2.0"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """An adapter that was chosen: its nats per answer token on validation and on test.

    `accuracy` where answers are chosen among a few, `exact` where they end in a number.
    """

    folder: Path
    validation: float
    test: float
    accuracy: float | None = None
    exact: float | None = None


def run(recipe: Recipe, domain: Domain, bench: Bench, out: Path, say: Say) -> Made:
    """Train `recipe` on `domain` and save the adapter and its card into the folder `out`."""
    adapter = _chosen(recipe, domain, bench, say)
    save_adapter(
        out,
        adapter,
        base_digest=bench.digest,
        licence=LICENCE,
        invocation=bench.form.header if recipe.settings.activated else (),
    )
    made = _measured(recipe, domain, bench, adapter, out)
    write_card(out, recipe.name, _scores(domain, made))
    return made


def _chosen(recipe: Recipe, domain: Domain, bench: Bench, say: Say) -> LowRankParameters:
    """The first seed's adapter, or the mean over all if that is better on validation."""
    trainer = bench.trainer(recipe.settings.shape)

    def rows_of(epoch: int) -> Sequence[TokenRow]:
        examples = domain.train if recipe.is_own_only else domain.epoch(epoch)
        return bench.form.rows(examples, min(LONGEST, recipe.settings.longest))

    def heard(progress: Progress, _adapter: LowRankParameters) -> None:
        say(f"step {progress.step} of {progress.steps}: loss {progress.loss:.4f}")

    found: list[LowRankParameters] = []
    for seed in recipe.seeds:
        say(f"{recipe.name}, seed {seed}")
        adapter = trainer.fit(rows_of, recipe.settings, seed, heard)
        round_to_bytes(adapter)
        found.append(adapter)
    if len(found) == 1:
        return found[0]
    mean = mean_of(found)
    round_to_bytes(mean)
    one, all_of_them = (_nats(recipe, domain, bench, adapter) for adapter in (found[0], mean))
    say(f"validation: {one:.4f} the first seed, {all_of_them:.4f} the mean of {len(found)}")
    return mean if all_of_them <= one else found[0]


def _nats(recipe: Recipe, domain: Domain, bench: Bench, adapter: LowRankParameters) -> float:
    activated = recipe.settings.activated
    scores = bench.score(adapter, domain.validation, domain.candidates, activated=activated)
    return scores.per_token


def _measured(
    recipe: Recipe, domain: Domain, bench: Bench, adapter: LowRankParameters, out: Path
) -> Made:
    activated = recipe.settings.activated
    validation = _nats(recipe, domain, bench, adapter)
    if not domain.test:
        return Made(out, validation, float("nan"))
    test = bench.score(adapter, domain.test, domain.candidates, activated=activated)
    accuracy = exact = None
    if domain.candidates:
        right = [domain.candidates.index(example.answer) for example in domain.test]
        accuracy = float((test.chosen == right).mean())
    if domain.name == "math":
        exact = float(bench.is_exact(adapter, domain.test, activated=activated).mean())
    return Made(out, validation, test.per_token, accuracy, exact)


def _scores(domain: Domain, made: Made) -> list[Score]:
    measured = [
        ("nats per answer token", made.test),
        ("accuracy", made.accuracy),
        ("exact match", made.exact),
    ]
    digest = probe_digest(domain.test)
    return [
        Score(f"{domain.name} test", metric, value, len(domain.test), digest)
        for metric, value in measured
        if value is not None and domain.test
    ]
