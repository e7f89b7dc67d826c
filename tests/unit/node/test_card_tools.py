"""What `dslm card` works with: examples from files, drafts of cards, checks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from coordinator.routing.score import make_prototype
from node.card_checks import check_prototypes, check_sealed, check_words
from node.card_content import card_of_file
from node.card_draft import common_words, draft, nearest_cards
from node.card_examples import EXAMPLES_MAX, read_examples
from node.card_file import CardFile, format_card_file, parse_card_file
from protocols.errors import UserError
from protocols.records import CapabilityCard, MeasuredScore, seal
from protocols.signing import Identity

ALICE = Identity(bytes(32))
NOW = 1_700_000_000.0
SUBJECTS = ("law", "bees", "math", "honey", "queen")


class SubjectEncoder:
    """A text lies near to the subjects that it names."""

    digest = "subjects"

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = []
        for text in texts:
            row = np.array([float(subject in text.lower()) for subject in SUBJECTS])
            row = np.append(row, 0.2)
            rows.append(row / np.linalg.norm(row))
        return np.stack(rows).astype(np.float32)


async def known(name: str, *exemplars: str) -> CapabilityCard:
    file = CardFile(f"About {exemplars[0]}", (name,), exemplars=exemplars)
    return await card_of_file(name, file, SubjectEncoder())


BEES = tuple(f"Why do my bees do this, number {number}?" for number in range(20))


# Examples ---------------------------------------------------------------------------------------


def test_each_text_file_of_a_folder_is_an_example(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\nand more\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("\ufefftwo")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "c.txt").write_text("hidden")
    (tmp_path / "d.png").write_bytes(b"\xff")
    assert read_examples(tmp_path) == ("one\nand more", "two")


def test_one_text_file_has_an_example_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "all.txt"
    path.write_text("one\n\n two \none\n")
    assert read_examples(path) == read_examples(tmp_path) == ("one", "two")


def test_json_lines_and_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "one", "a": "x"}\n\n"two"\n{"prompt": "three", "q": "no"}\n')
    assert read_examples(path) == ("one", "two", "three")
    path = tmp_path / "b.csv"
    path.write_text('id,Question\n1,"four, or\nfive"\n2,six\n3\n')
    assert read_examples(path) == ("four, or\nfive", "six")
    path = tmp_path / "c.csv"
    path.write_text("seven\neight\n")
    assert read_examples(path) == ("seven", "eight")
    path = tmp_path / "d.tsv"
    path.write_text("text\tlabel\nnine\t1\n")
    assert read_examples(path) == ("nine",)
    assert len(read_examples(tmp_path)) == 8


def test_of_many_some_are_taken_from_all_over(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(map(str, range(2_000))))
    found = read_examples(path)
    assert len(found) == 500 <= EXAMPLES_MAX
    assert found[-1] == "1996"


@pytest.mark.parametrize(
    ("name", "content", "about"),
    [
        ("a.txt", b"\n", "holds no examples"),
        ("a.txt", b"\xff\xfe", "UTF-8"),
        ("a.jsonl", b"{", "line 1, is no JSON"),
        ("a.jsonl", b'{"prompt": 3}', "no text in a field"),
        ("a.csv", b"x,y\n1,2\n", "no column"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, name: str, content: bytes, about: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=about):
        read_examples(tmp_path)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder"):
        read_examples(tmp_path / "none")


# Drafts -----------------------------------------------------------------------------------------


async def test_examples_of_a_known_domain_are_proposed_for_it() -> None:
    law = await known("law", "law law", "law")
    bees = await known("animals/insects", "bees", "bees and honey")
    made = await draft(BEES, CardFile(), [law, bees], SubjectEncoder())
    assert made.file.domains == ("animals/insects",)
    assert "animals/insects" in made.why
    assert [one.specialist for one in made.near] == ["animals/insects", "law"]
    again = parse_card_file(format_card_file(made.file).encode())
    assert again == made.file
    card = await card_of_file("x", again, SubjectEncoder())
    assert all(check.ok for check in await check_prototypes(card, [law], SubjectEncoder()))


async def test_what_was_given_stands() -> None:
    given = CardFile("Mine", ("bees/care",), ("en",), licence="mit")
    made = await draft(BEES, given, (), SubjectEncoder())
    file = made.file
    assert (file.description, file.domains, file.licence) == ("Mine", ("bees/care",), "mit")
    assert made.why == "named by you"
    assert set(file.exemplars) <= set(BEES)


async def test_without_known_cards_a_usual_name_or_a_word_is_proposed() -> None:
    laws = tuple(f"What does the law say of case {number}?" for number in range(9))
    assert (await draft(laws, CardFile(), (), SubjectEncoder())).file.domains == ("law",)
    numbers = tuple(f"{number}" for number in range(9))
    assert len((await draft(numbers, CardFile(), (), SubjectEncoder())).file.domains) == 1


def test_words_that_every_text_has_are_not_common_words() -> None:
    words = common_words(["Which hive is what?", "Which HIVE would you open?", "a hives hive"])
    assert words[0] == "hive"
    assert "which" not in words


async def test_cards_of_other_encoders_are_near_to_nothing() -> None:
    law = replace(await known("law", "law"), encoder="other")
    vectors = await SubjectEncoder().encode(["law"])
    assert nearest_cards(vectors, [law], "subjects") == ()


# Checks -----------------------------------------------------------------------------------------


async def failing(card: CapabilityCard, others: Sequence[CapabilityCard] = ()) -> dict[str, str]:
    checks = [*check_words(card), *await check_prototypes(card, others, SubjectEncoder())]
    return {one.name: f"{one.detail} {one.fix}" for one in checks if not one.ok}


async def test_a_good_card_passes() -> None:
    card = await known("law", "law 1", "law 2", "law 3", "law 4")
    assert await failing(card, [await known("bees", "bees")]) == {}
    score = MeasuredScore("probe", "accuracy", 0.5, 9, "ab" * 32, "me")
    assert await failing(replace(card, scores=(score,))) == {}


async def test_each_fault_is_named() -> None:
    card = await known("law", "law 1", "law 2", "law 3", "law 4")
    assert "name at least one" in (await failing(replace(card, domains=())))["domains"]
    assert "write law/tax" in (await failing(replace(card, domains=("Law/Tax",))))["domains"]
    assert "description" in await failing(replace(card, description=""))
    assert "1, of at most" in (await failing(await known("law", "law")))["exemplars"]
    bare = MeasuredScore("probe", "accuracy", 0.5, 9)
    assert "lacks digest" in (await failing(replace(card, scores=(bare,))))["scores"]
    assert "plain base" in (await failing(replace(card, prototypes=())))["prototypes"]
    assert "another encoder" in (await failing(replace(card, encoder="x")))["prototypes"]
    huge = replace(card, exemplars=("law " * 100,) * 30)
    assert "8,192" in (await failing(huge))["size"]


async def test_prototypes_of_something_else_are_called_a_lie() -> None:
    card = await known("law", "law 1", "law 2", "law 3", "law 4")
    bees = (await SubjectEncoder().encode(["bees"]))[0]
    lying = replace(card, prototypes=(make_prototype(bees),))
    found = await failing(lying)
    assert "others take a card under" in found["prototypes"]


async def test_a_card_that_never_wins_its_own_examples_is_told_so() -> None:
    card = await known("law", "law bees", "law bees 2", "law bees 3", "law bees 4")
    law = (await SubjectEncoder().encode(["math"]))[0]
    far = replace(card, prototypes=(make_prototype(law),))
    rival = await known("bees", "law bees")
    found = await failing(far, [rival])
    assert "never wins its own exemplars" in found["ranking"]
    assert "most go to bees" in found["ranking"]
    assert "ranking" not in await failing(card, [replace(rival, specialist="law")])


async def test_signature_and_time() -> None:
    card = replace(await known("law", "law"), peer=ALICE.peer_id, swarm="s", expires_at=NOW + 60)
    sealed = seal(card, ALICE)
    assert [one.ok for one in check_sealed(sealed, NOW)] == [True, True]
    late = list(check_sealed(sealed, NOW + 61))
    assert not late[-1].ok
    assert "expired" in late[-1].detail
    forged = sealed[:-1] + bytes([sealed[-1] ^ 1])
    (check,) = check_sealed(forged, NOW)
    assert not check.ok
