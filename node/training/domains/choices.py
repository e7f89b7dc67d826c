"""Questions of MMLU (Hendrycks et al., arXiv 2009.03300, MIT), answered in words.

Knows MMLU's rows and domains; must not know training. This is not MMLU's protocol: the prompt is
the question alone, the answer is the text of the right choice, and most of the test part is learnt
from, since there is no other train part of such questions.
"""

from pathlib import Path

from node.training.domains.domain import Domain
from node.training.domains.sets import ChoiceQuestion, bucket_of, read_set, without_repeats
from node.training.examples import Example

SUBJECTS = {
    "math": "math",
    "medicine": "medicine",
    "law": "law",
    "computing": "computing",
    "science": "physics_chem",
    "economics": "economics_business",
    "history": "history_politics",
    "psychology": "psychology",
}
"""MMLU's groups of subjects by the names of our domains."""
TEST_BUCKET = 5
"""Rows of the test part that are only measured with."""


def choice_domain(folder: Path, name: str) -> Domain:
    """The rows of one of `SUBJECTS`. Test is one bucket of MMLU's test part, train all else but a
    sixteenth for validation.
    """
    rows = [row for row in read_set(folder, "mmlu", ChoiceQuestion) if row.domain == SUBJECTS[name]]
    test = [_example(row) for row in rows if is_test(row)]
    known = [_example(row) for row in rows if not is_test(row)]
    validation = [one for one in known if bucket_of(one.prompt, 16) == 0]
    train = without_repeats(known, [*test, *validation])
    validation = without_repeats(validation, test)
    return Domain(name, tuple(train), tuple(validation), tuple(test))


def all_choices(folder: Path) -> list[Example]:
    """The rows of all subjects that are neither measured with nor kept for validation."""
    rows = read_set(folder, "mmlu", ChoiceQuestion)
    held_out = [_example(row) for row in rows if is_test(row)]
    known = [_example(row) for row in rows if not is_test(row)]
    held_out += [one for one in known if bucket_of(one.prompt, 16) == 0]
    return without_repeats(known, held_out)


def is_test(row: ChoiceQuestion) -> bool:
    """Whether a row is held out."""
    return row.split == "test" and row.bucket == TEST_BUCKET


def choice_examples(row: ChoiceQuestion) -> list[Example]:
    """The question with each choice as its answer, in order."""
    return [Example(row.q, choice, f"mmlu/{row.subject}") for choice in row.choices]


def _example(row: ChoiceQuestion) -> Example:
    return choice_examples(row)["ABCD".index(row.answer)]
