"""Trains specialists by their recipes and measures every item: makes `specialists_items.npz`.

Method: each name is trained as `python -m node.training.recipes` does it, from DIR's sets on the
given base; what is chosen on validation is scored on all parts, and the single trainings of which
it was made on their own test part. `average` is the mean of the eight specialists in `--work`.
`base`, `multitask` and `trial` stay as they are in the file. Prompts must be those of the file.

Single trainings and results are kept in `--work`, so that a run that was ended, or a second one,
goes on from there; several processes may share it if they have different names. `--out` gets
adapters in tar files of three, and `items-LABEL.npz`, each at once when it is there.
`--merge FILE...` puts such files into `specialists_items.npz`.
"""

import argparse
import fcntl
import json
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from node.training.domains.catalogue import NAMES
from node.training.domains.domain import Domain
from node.training.export import load_adapter, round_to_bytes
from node.training.recipes.bench import Bench, mean_of, open_bench
from node.training.recipes.run import run
from node.training.recipes.settings import Kind, Recipe, recipe, recipe_domain
from node.training.recipes.trainings import Trainings
from protocols.errors import UserError
from specialists_items import (
    Part,
    Values,
    all_parts,
    choices_of,
    load,
    merge,
    save,
    unknown_parts,
    values_of,
)

ITEMS = Path(__file__).with_name("specialists_items.npz")
_A_TAR = 3
_TARS = 4
QUICK = 2
"""Rows of each part, steps and seeds with `--quick`."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is shared by all names. `limit` items of each part (0: all); at most `seeds` by name."""

    data: Path
    work: Path
    out: Path
    label: str
    limit: int
    seeds: Mapping[str, int]
    say: Callable[[str], None]


def pack(job: Job, name: str) -> None:
    """Put `work/made/NAME` into the first tar file of `out` with room, once."""
    sent = job.work / "sent" / name
    with (job.work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for number in range(1, _TARS + 1):
            path = job.out / f"adapters-{number}.tar"
            with tarfile.open(path, "a") as tar:
                folders = {one.split("/")[0] for one in tar.getnames()}
                if len(folders) < _A_TAR or name in folders:
                    tar.add(job.work / "made" / name, arcname=name)
                    sent.parent.mkdir(parents=True, exist_ok=True)
                    sent.touch()
                    return
    job.say(f"{name}: no room in {_TARS} files, comes with the next run")


def make(job: Job, name: str, trainings: Trainings, parts: Sequence[Part]) -> None:
    """Train, choose and measure one arm; its values go into `work/items/NAME.npz`."""
    plain, is_activated, _ = name.partition("-activated")
    kind: Kind = "activated" if is_activated else "final"
    wanted, domain = recipe(plain, kind), recipe_domain(job.data, plain, kind)
    wanted = replace(wanted, seeds=wanted.seeds[: job.seeds.get(name)])
    if job.limit:
        wanted, domain = _quick(wanted), _few(domain)
    folder = job.work / "made" / name
    chosen, made = run(wanted, domain, trainings, folder)
    job.say(f"{name}: {made}")
    bench, own = trainings.bench, [part for part in parts if part.domain == plain]
    values: Values = {}
    if plain in NAMES:
        asked = own if is_activated else parts
        values |= values_of(bench, name, chosen.adapter, asked, activated=bool(is_activated))
        if not is_activated:
            values |= choices_of(bench, name, chosen.adapter, [plain], job.data, job.limit)
        tests = [part for part in own if part.name.endswith("test")]
        for seed, single in chosen.singles.items():
            values |= values_of(
                bench, f"{name}-{seed}", single, tests, activated=bool(is_activated)
            )
    told = asdict(replace(made, folder=Path(name))) | {
        "folder": name,
        "settings": repr(wanted.settings),
        "seeds": list(chosen.singles),
        "is_complete": set(chosen.singles) == set(wanted.seeds),
    }
    _keep(job, name, values, told)
    pack(job, name)


def average(job: Job, bench: Bench, parts: Sequence[Part]) -> None:
    """The mean of the eight, on test parts."""
    eight = [load_adapter(job.work / "made" / name, bench.base) for name in NAMES]
    mean = mean_of(eight)
    round_to_bytes(mean)
    tests = [part for part in parts if part.name.endswith("test")]
    values = values_of(bench, "average", mean, tests)
    values |= choices_of(bench, "average", mean, NAMES, job.data, job.limit)
    _keep(job, "average", values, {"is_complete": True})


def is_complete(job: Job, name: str) -> bool:
    """Whether an arm was made with all its seeds."""
    path = job.work / "items" / f"{name}.npz"
    return path.is_file() and bool(json.loads(str(load(path)[f"made/{name}"]))["is_complete"])


def _keep(job: Job, name: str, values: Values, told: dict[str, object]) -> None:
    (job.work / "items").mkdir(parents=True, exist_ok=True)
    values[f"made/{name}"] = np.array(json.dumps(told))
    save(job.work / "items" / f"{name}.npz", values)


def send(job: Job, names: Sequence[str]) -> None:
    """All values that there are for `names`, as one file of `out`."""
    values: Values = {}
    for name in names:
        path = job.work / "items" / f"{name}.npz"
        if path.is_file():
            values |= load(path)
    save(job.out / f"items-{job.label}.npz", values)


def work_through(
    job: Job, names: Sequence[str], trainings: Trainings, is_over: Callable[[], bool]
) -> list[str]:
    """Make all of `names`, in order; one that fails is tried once more at the end. Those that
    could not be made are returned.
    """
    parts = all_parts(job.data, job.limit)
    if unknown := unknown_parts(parts, ITEMS):
        raise SystemExit(f"other prompts than in {ITEMS}: {unknown}")
    left, failed = list(names), list[str]()
    while left:
        name = left.pop(0)
        if is_complete(job, name):
            if name != "average" and not (job.work / "sent" / name).is_file():
                pack(job, name)
            continue
        try:
            if name == "average":
                average(job, trainings.bench, parts)
            else:
                make(job, name, trainings, parts)
        except UserError as error:
            job.say(f"{name}: {error}")
        except Exception:  # noqa: BLE001  (one arm that fails must not cost the others)
            job.say(f"{name} failed:\n{traceback.format_exc()}")
            trainings.forget()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if name not in failed and not is_over():
                left.append(name)
            failed.append(name)
        send(job, names)
    send(job, names)
    return [name for name in names if not is_complete(job, name)]


def _few(domain: Domain) -> Domain:
    shortest = sorted(domain.train, key=lambda one: len(one.prompt) + len(one.answer))
    make = (lambda _epoch, _rng: shortest[:8]) if domain.make else None
    return replace(
        domain,
        train=tuple(shortest[:8]),
        validation=domain.validation[:QUICK],
        test=domain.test[:QUICK],
        make=make,
    )


def _quick(wanted: Recipe) -> Recipe:
    small = replace(wanted.settings, batch=4, longest=96, steps_max=QUICK)
    return replace(wanted, settings=small, seeds=wanted.seeds[:QUICK])


def main(given: Sequence[str] | None = None) -> int:
    """The exit code is 1 if something could not be made."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    everything = [*NAMES, *(f"{name}-activated" for name in NAMES), "planner", "average"]
    parser.add_argument(
        "names", nargs="*", help=f"of {everything}, all by default; NAME:2 for 2 seeds"
    )
    parser.add_argument("--data", type=Path, help="folder with NAME.jsonl.gz")
    parser.add_argument("--model", type=Path, help="the base")
    parser.add_argument("--work", type=Path, help="where trainings are kept")
    parser.add_argument("--out", type=Path, help="where results go")
    parser.add_argument("--label", default="all", help="of the file with values")
    parser.add_argument("--deadline", type=float, default=1e9, help="s; then none is begun")
    parser.add_argument("--quick", action="store_true", help="a few rows and steps")
    parser.add_argument("--merge", type=Path, nargs="+", help="values for the benchmark's file")
    arguments = parser.parse_args(given)
    if arguments.merge:
        for arm, text in merge(ITEMS, arguments.merge).items():
            print(arm, text)
        return 0
    if None in (arguments.data, arguments.model, arguments.work, arguments.out):
        parser.error("--data, --model, --work and --out are needed")

    def say(text: str) -> None:
        print(f"{arguments.label} {time.monotonic() - start:5.0f} s  {text}", flush=True)

    def is_over() -> bool:
        return bool(time.monotonic() - start > arguments.deadline)

    sys.setswitchinterval(5e-4)  # rows are made in a thread: steps must not wait long for it
    bench = open_bench(arguments.model, "cuda" if torch.cuda.is_available() else "cpu")
    if arguments.quick:
        bench = replace(bench, answer_max=4)
    for folder in (arguments.work, arguments.out):
        folder.mkdir(parents=True, exist_ok=True)
    limit = QUICK if arguments.quick else 0
    given_names = [str(name).partition(":") for name in arguments.names or everything]
    seeds = {name: int(count) for name, _, count in given_names if count}
    names = [name for name, _, _ in given_names]
    job = Job(arguments.data, arguments.work, arguments.out, arguments.label, limit, seeds, say)
    kept = arguments.work / "trainings"
    trainings = Trainings(bench, say, kept, lambda: not is_over())
    say(f"begin on {bench.base.device}")
    missing = work_through(job, names, trainings, is_over)
    say(f"end; missing or with fewer seeds: {missing}")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
