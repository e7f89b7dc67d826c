"""What is learnt is never measured with, and stays what it was under all variations."""

import re
from pathlib import Path

import numpy as np
import pytest

from coordinator.routing.planner_text import read_plan, shown_names
from node.training.domains import computing
from node.training.domains.arithmetic import with_other_numbers
from node.training.domains.catalogue import NAMES, domain, multitask
from node.training.domains.choices import choice_domain
from node.training.domains.first_names import with_other_names
from node.training.domains.functions import functions_in, library_functions
from node.training.domains.law import readable
from node.training.domains.math import final_number
from node.training.domains.planner import UNSEEN, USING, planner_domain
from node.training.domains.sets import Question as Row
from node.training.domains.sets import normalised, read_set
from node.training.probe import probe_digest
from protocols.errors import UserError
from tests.unit.node.training.made_up_sets import write_sets

MODULE = '''
class Bag:
    @property
    def size(self) -> int:
        """How much is in it."""
        total = sum(self.parts)
        return total

def empty():
    """Nothing."""

def one_line(): return 1

def plain(x):
    return x
'''


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    functions = [
        one
        for number in range(80)
        for one in functions_in(f"module{number}", MODULE.replace("size", f"size{number}"))
    ]
    monkeypatch.setattr(computing, "library_functions", lambda _: functions)
    return write_sets(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_is_in_two_parts(sets: Path, name: str) -> None:
    made = domain(sets, name)
    parts = [made.train, made.validation, made.test]
    assert made.train
    assert made.test
    prompts = [{normalised(one.prompt) for one in part} for part in parts]
    held_out = prompts[1] | prompts[2]
    for other in choice_domain(sets, name).test:
        held_out.add(normalised(other.prompt))
    assert not prompts[0] & held_out
    assert not prompts[1] & prompts[2]


def test_a_disease_of_the_test_part_is_not_learnt(sets: Path) -> None:
    assert all("Fever 1 " not in one.prompt for one in domain(sets, "medicine").train)


def test_law_is_measured_with_as_many_yes_as_no(sets: Path) -> None:
    answers = [one.answer for one in domain(sets, "law").test]
    assert answers.count("Yes") == answers.count("No") == 2


def test_the_same_epoch_is_the_same_and_another_is_not(sets: Path) -> None:
    made = domain(sets, "math")
    assert made.epoch(1) == made.epoch(1) != made.epoch(2)
    assert made.epoch(1) != made.epoch(1, seed=1)
    assert len(made.epoch(1)) == len(made.train)


def test_multitask_has_all(sets: Path) -> None:
    every = multitask(sets)
    sources = {one.source.partition("/")[0] for one in every.train}
    assert sources == {"gsm8k", "medquad", "legalbench", "mbpp", "stdlib", "mmlu"} | {
        "stdlib-undocumented"
    }
    assert len(every.epoch(0)) == len(every.train)


def test_other_numbers_still_come_out() -> None:
    question = "A box holds 18 pens and costs $45. How much are 3 boxes with 2 pens more each?"
    answer = (
        "3 boxes cost 3*45=$<<3*45=135>>135.\nWith 20 more it is 135+20=<<135+20=155>>155.\n"
        "#### 155"
    )
    found = [with_other_numbers(question, answer, np.random.default_rng(n)) for n in range(20)]
    changed = [one for one in found if one is not None]
    assert changed
    for new_question, new_answer in changed:
        price = int(re.findall(r"costs \$(\d+)", new_question)[0])
        boxes = int(re.findall(r"are (\d+) boxes", new_question)[0])
        assert (price, boxes) != (45, 3)
        assert final_number(new_answer) == str(boxes * price + 20)
        assert f"{boxes}*{price}=$<<{boxes}*{price}={boxes * price}>>" in new_answer


@pytest.mark.parametrize(
    "answer",
    [
        "It is 4*9=<<4*9=37>>37.\n#### 37",  # does not come out
        "It is 36.\n#### 36",  # nothing to compute
        "It is 9/4=<<9/4=2.25>>2.25.\n#### 2.25",  # would not stay whole
        "It is x*9=<<x*9=36>>36.\n#### 36",
    ],
)
def test_what_cannot_be_changed_safely_is_left(answer: str) -> None:
    question = "There are 4 rows of 9 chairs. How many chairs are there?"
    for seed in range(5):
        assert with_other_numbers(question, answer, np.random.default_rng(seed)) is None


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("He eats 7 nuts a day. How many in a week?", "7*7=<<7*7=49>>49\n#### 49"),
        ("She has 60 nuts and twice 48.", "60+48 = 108, so 108*2=<<108*2=216>>216\n#### 216"),
        ("Six boys and 6 girls.", "6+6=<<6+6=12>>12\n#### 12"),
    ],
)
def test_numbers_that_say_more_than_the_question_does_stay(question: str, answer: str) -> None:
    for seed in range(20):
        assert with_other_numbers(question, answer, np.random.default_rng(seed)) is None


def test_other_names_fit_in_question_and_answer() -> None:
    question = "Anna has 3 nuts more than Tom. Her aunt Lucy has none. How many has Anna?"
    answer = "Anna's nuts are Tom's and 3.\n#### 3"
    for seed in range(20):
        found = with_other_names(question, answer, np.random.default_rng(seed))
        assert found is not None
        both = f"{found[0]} / {found[1]}"
        pattern = re.escape(f"{question} / {answer}")
        for group, name in (("a", "Anna"), ("t", "Tom"), ("l", "Lucy")):
            pattern = pattern.replace(name, rf"(?P<{group}>[A-Z]\w+)", 1)
            pattern = pattern.replace(name, rf"(?P={group})")
        same = re.fullmatch(pattern, both)
        assert same is not None
        assert len({*same.groups(), "Anna", "Tom", "Lucy"}) == 6
    rng = np.random.default_rng(0)
    assert with_other_names("Lake Anna is deep.", "#### 1", rng) is None
    assert with_other_names("Mrs. Martin has 3 nuts.", "#### 3", rng) is None
    assert with_other_names("A boy has 3 nuts.", "#### 3", rng) is None


def test_functions_are_cut_at_the_end_of_their_documentation() -> None:
    plain, size = functions_in("m", MODULE)
    assert size.head.startswith("@property\ndef size(self)")
    assert size.head.endswith('"""How much is in it."""')
    assert size.body == "    total = sum(self.parts)\n    return total"
    assert (size.is_documented, plain.is_documented) == (True, False)
    assert functions_in("m", "def (:") == []


def test_another_versions_library_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "bags").mkdir()
    (tmp_path / "bags" / "__init__.py").write_text(MODULE)
    assert {one.module for one in library_functions(tmp_path)} == {"bags"}


def test_plans_are_valid_and_unseen_subjects_are_unseen(sets: Path) -> None:
    made = planner_domain(sets, train=200, held_out=60)
    for one in (*made.train, *made.epoch(3), *made.test):
        lines = one.prompt.partition("\nPrompt:")[0].splitlines()[1:]
        names = [line.partition(":")[0] for line in lines]
        assert shown_names(names) == tuple(names)
        steps = read_plan(one.answer, names)
        assert steps
        for _, text in steps:
            words = normalised(text.replace(USING, "")).split()
            assert set(words) <= set(normalised(one.prompt).split())
    for subject in UNSEEN:
        assert all(f"{subject} " not in one.prompt.lower() for one in made.epoch(0))
    assert any("/unseen/" in one.source for one in made.test)
    assert made.epoch(1) == made.epoch(1) != made.epoch(1, seed=2)
    opaque = [sum(row.source.endswith("opaque") for row in made.epoch(n)) for n in range(3)]
    assert opaque == sorted(opaque)


def test_tasks_read_as_words() -> None:
    assert readable("CUAD_Cap On Liability") == "CUAD cap on liability"
    assert readable("personal_jurisdiction") == "personal jurisdiction"


def test_final_numbers() -> None:
    assert final_number("so 1,200\n#### $1,200.") == "1200"
    assert final_number("no mark 5") == ""


def test_a_set_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gsm8k"):
        read_set(tmp_path, "gsm8k", Row)
    (tmp_path / "gsm8k.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="gsm8k"):
        read_set(tmp_path, "gsm8k", Row)


def test_the_name_of_a_probe_set_depends_on_all_of_it(sets: Path) -> None:
    test = domain(sets, "law").test
    assert probe_digest(test) == probe_digest(test)
    assert probe_digest(test) != probe_digest(test[::-1])
    assert probe_digest(test) != probe_digest(test[:-1])
