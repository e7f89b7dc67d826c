"""Single trainings of a recipe: their rows made ahead, and kept in a folder once they are done.

Knows trainers, seeds and files; must not know which adapter is chosen in the end.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from node.training.domains.domain import Domain
from node.training.examples import TokenRow
from node.training.export import load_adapter, round_to_bytes, save_adapter
from node.training.fit import Progress, Trainer
from node.training.low_rank import AdapterShape, LowRankParameters
from node.training.recipes.bench import LONGEST, Bench
from node.training.recipes.settings import Recipe

Say = Callable[[str], None]


class Trainings:
    """Trains on one bench, one adapter after the other.

    With a folder `kept`, trainings that lie there are not repeated. None is begun any more when
    `may_begin` says so.
    """

    def __init__(
        self,
        bench: Bench,
        say: Say,
        kept: Path | None = None,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        self.bench = bench
        self.say = say
        self._kept = kept
        self._may_begin = may_begin
        self._trainers: dict[AdapterShape, Trainer] = {}

    def adapters(self, recipe: Recipe, domain: Domain) -> dict[int, LowRankParameters]:
        """By seed, B as it will be served; those that may not begin are missing."""
        seeds, epochs = recipe.seeds, recipe.settings.epochs
        found: dict[int, LowRankParameters] = {}
        missing: list[int] = []
        for seed in seeds:
            folder = self._folder(recipe, seed)
            if folder is not None and folder.is_dir():
                found[seed] = load_adapter(folder, self.bench.base)
            else:
                missing.append(seed)
        turns = [(seed, epoch) for seed in missing for epoch in range(epochs)]
        with _Ahead(lambda turn: self._rows(recipe, domain, turns[turn])) as ahead:
            for index, seed in enumerate(missing):
                if not self._may_begin():
                    self.say(f"{recipe.name}: no time for seeds {missing[index:]}")
                    break
                found[seed] = self._trained(recipe, seed, ahead, index)
        return {seed: found[seed] for seed in seeds if seed in found}

    def forget(self) -> None:
        """Drop trainers and the memory that they hold."""
        self._trainers.clear()

    def _trained(self, recipe: Recipe, seed: int, ahead: "_Ahead", index: int) -> LowRankParameters:
        settings = recipe.settings

        def heard(progress: Progress, _adapter: LowRankParameters) -> None:
            steps = f"step {progress.step} of {progress.steps}"
            self.say(f"{recipe.name}, seed {seed}: {steps}, loss {progress.loss:.4f}")

        self.say(f"{recipe.name}, seed {seed}, {settings.epochs} epochs")
        trainer = self._trainers.get(settings.shape)
        if trainer is None:
            trainer = self._trainers[settings.shape] = self.bench.trainer(settings.shape)
        first, last = index * settings.epochs, (index + 1) * settings.epochs - 1

        def rows_of(epoch: int) -> Sequence[TokenRow]:
            return ahead.rows(first + epoch, is_next_wanted=first + epoch < last)

        adapter = trainer.fit(rows_of, settings, seed, heard)
        round_to_bytes(adapter)
        folder = self._folder(recipe, seed)
        if folder is not None:
            part = folder.with_name(f"{folder.name}.part")
            save_adapter(part, adapter, base_digest=self.bench.digest, licence="")
            part.rename(folder)
        return adapter

    def _rows(self, recipe: Recipe, domain: Domain, turn: tuple[int, int]) -> Sequence[TokenRow]:
        seed, epoch = turn
        examples = domain.train if recipe.is_own_only else domain.epoch(epoch, seed)
        return self.bench.form.rows(examples, min(LONGEST, recipe.settings.longest))

    def _folder(self, recipe: Recipe, seed: int) -> Path | None:
        """One for each training that would come out otherwise."""
        if self._kept is None:
            return None
        digest = hashlib.sha256(repr((recipe.settings, recipe.is_own_only)).encode()).hexdigest()
        return self._kept / recipe.name / f"{digest[:8]}-{seed}"


class _Ahead:
    """Makes the rows of the next turn in a thread while those of one are learnt from."""

    def __init__(self, make: Callable[[int], Sequence[TokenRow]]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._coming: dict[int, Future[Sequence[TokenRow]]] = {}

    def rows(self, turn: int, *, is_next_wanted: bool) -> Sequence[TokenRow]:
        """Those of `turn`, after which the next is made if it is wanted."""
        coming = self._coming.pop(turn, None) or self._pool.submit(self._make, turn)
        rows = coming.result()
        if is_next_wanted:
            self._coming[turn + 1] = self._pool.submit(self._make, turn + 1)
        return rows

    def __enter__(self) -> "_Ahead":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
