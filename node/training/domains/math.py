"""Word problems: GSM8K (Cobbe et al., arXiv 2110.14168, MIT).

Knows GSM8K's splits; must not know training. Answers keep their calculations in `<<...>>`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from node.training.domains.arithmetic import with_other_numbers
from node.training.domains.domain import Domain
from node.training.domains.first_names import with_other_names
from node.training.domains.sets import Question, bucket_of, read_set, without_repeats
from node.training.examples import Example

_WISHES = (
    "Solve this step by step.",
    "Solve the problem step by step and end with #### and the answer.",
    "Show your work, then give the final number.",
    "Think step by step.",
)
_ASKED_SHARE = 0.2
_OTHER_NUMBERS_SHARE = 0.6
_OTHER_NAMES_SHARE = 0.6


def math_domain(folder: Path) -> Domain:
    """GSM8K's own split; a thirty-second of train is the validation part."""
    rows = read_set(folder, "gsm8k", Question)
    test = [_example(row) for row in rows if row.split == "test"]
    known = [_example(row) for row in rows if row.split == "train"]
    validation = [one for one in known if bucket_of(one.prompt, 32) == 0]
    train = without_repeats(known, [*test, *validation])
    return Domain("math", tuple(train), tuple(validation), tuple(test), vary=_varied)


def final_number(text: str) -> str:
    """What stands after the last `####`, without commas and currency; empty if nothing does."""
    _, mark, after = text.rpartition("####")
    words = after.strip().splitlines()
    return words[0].strip().replace(",", "").replace("$", "").rstrip(".") if mark and words else ""


def _example(row: Question) -> Example:
    return Example(row.q, row.a, "gsm8k")


def _varied(example: Example, rng: np.random.Generator) -> Example:
    """Most with other numbers and other names where that is safe; some with a wish around it."""
    if rng.random() < _OTHER_NUMBERS_SHARE:
        other = with_other_numbers(example.prompt, example.answer, rng)
        if other is not None:
            example = replace(example, prompt=other[0], answer=other[1])
    if rng.random() < _OTHER_NAMES_SHARE:
        other = with_other_names(example.prompt, example.answer, rng)
        if other is not None:
            example = replace(example, prompt=other[0], answer=other[1])
    if rng.random() < _ASKED_SHARE:
        example = replace(example, prompt=" ".join(_wished(example.prompt, rng)))
    return example


def _wished(prompt: str, rng: np.random.Generator) -> Iterator[str]:
    wish = _WISHES[int(rng.integers(len(_WISHES)))]
    yield from (wish, prompt) if rng.random() < 0.5 else (prompt, wish)
