"""The values of single items under one adapter: what `specialists_items.npz` consists of.

Knows the parts that are measured with and the names of values; must not know training.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.training.domains.catalogue import NAMES, own_domain
from node.training.domains.choices import SUBJECTS, choice_domain, choice_examples, is_test
from node.training.domains.sets import ChoiceQuestion, read_set
from node.training.examples import Example
from node.training.low_rank import LowRankParameters
from node.training.probe import prompt_hash
from node.training.recipes.bench import Bench

OWN = ("math", "medicine", "law", "computing")
Values = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Part:
    """One domain's examples of one part, with the answers to choose among."""

    domain: str
    name: str
    examples: tuple[Example, ...]
    candidates: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """As in the names of values: `math/test`."""
        return f"{self.domain}/{self.name}"


def all_parts(data: Path, limit: int = 0) -> list[Part]:
    """Test and validation parts of all domains; of those with a set of their own also MMLU's."""
    parts: list[Part] = []
    for name in NAMES:
        own = own_domain(data, name)
        parts.append(Part(name, "test", own.test, own.candidates))
        parts.append(Part(name, "validation", own.validation, own.candidates))
        if name in OWN:
            more = choice_domain(data, name)
            parts.append(Part(name, "mmlu-test", more.test))
            parts.append(Part(name, "mmlu-validation", more.validation))
    if not limit:
        return parts
    return [Part(one.domain, one.name, one.examples[:limit], one.candidates) for one in parts]


def unknown_parts(parts: Iterable[Part], items: Path) -> list[str]:
    """Parts whose prompts are not those with which `items` was measured."""
    with np.load(items) as file:
        return [
            part.key
            for part in parts
            if file[f"prompts/{part.key}"][: len(part.examples)].tolist()
            != [prompt_hash(example.prompt) for example in part.examples]
        ]


def values_of(
    bench: Bench,
    arm: str,
    adapter: LowRankParameters | None,
    parts: Iterable[Part],
    *,
    activated: bool = False,
) -> Values:
    """Nats of each item of `parts`; whether Yes or No is right, and whether the final number is."""
    found: Values = {}
    for part in parts:
        scores = bench.score(adapter, part.examples, part.candidates, activated=activated)
        found[f"{arm}/{part.key}/nats"] = scores.nats.astype(np.float32)
        if part.candidates:
            right = [part.candidates.index(example.answer) for example in part.examples]
            found[f"{arm}/{part.key}/right"] = (scores.chosen == right).astype(np.int8)
        if part.key == "math/test":
            exact = bench.is_exact(adapter, part.examples, activated=activated)
            found[f"{arm}/{part.key}/exact"] = exact
    return found


def choices_of(
    bench: Bench, arm: str, adapter: LowRankParameters, names: Iterable[str], data: Path, limit: int
) -> Values:
    """Whether the right one of MMLU's four choices has the fewest nats per token."""
    found: Values = {}
    rows = [row for row in read_set(data, "mmlu", ChoiceQuestion) if is_test(row)]
    for name in names:
        asked = [row for row in rows if row.domain == SUBJECTS[name]][: limit or None]
        scores = bench.score(adapter, [one for row in asked for one in choice_examples(row)])
        cheapest = (scores.nats / scores.tokens).reshape(-1, 4).argmin(axis=1)
        right = ["ABCD".index(row.answer) for row in asked]
        found[f"choices/{arm}/{name}"] = cheapest == right
    return found


def save(path: Path, values: Mapping[str, NDArray[np.generic]]) -> None:
    """In one piece: a reader never sees half of it."""
    part = path.with_name(f"{path.stem}.part.npz")
    np.savez_compressed(part, allow_pickle=False, **values)
    part.rename(path)


def load(path: Path) -> Values:
    """What `save` wrote."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def merge(items: Path, measured: Iterable[Path]) -> dict[str, str]:
    """Put newly `measured` values into `items`, in place of all of the same arms; single trainings
    of an arm go with it. What was written about how arms were made is returned, by arm.
    """
    every = load(items)
    new: Values = {}
    for path in measured:
        new |= load(path)
    told = {name.partition("/")[2]: str(new[name]) for name in new if name.startswith("made/")}
    values = {name: value for name, value in new.items() if not name.startswith("made/")}
    arms = {name.split("/")[0] for name in values} - {"choices"}
    old = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(arms)))})(?:-\d+)?/|activated-")
    kept = {name: value for name, value in every.items() if not old.match(name)}
    save(items, kept | values)
    return {arm: json.dumps(json.loads(text), indent=1) for arm, text in told.items()}
