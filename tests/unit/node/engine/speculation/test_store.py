"""The shared store: who finds what, and how large it gets."""

import random

import pytest

from node.engine.speculation.store import SuffixStore
from tests.unit.node.engine.speculation.texts import written

PROMPT = [7, 8, 9, 10, 11]
ANSWER = list(range(100, 130))


def store_with(answer: list[int] = ANSWER, salt: str = "alice") -> SuffixStore:
    store = SuffixStore()
    store.leave(written(PROMPT, answer, 1, salt))
    return store


def test_an_earlier_answer_is_drafted_from_its_first_token_on() -> None:
    store = store_with()
    text = written(PROMPT, [], 2, "alice")
    for known in range(len(ANSWER) - 3):
        draft = store.propose(text, 4)
        assert draft is not None
        assert list(draft.token_ids) == ANSWER[known : known + 4]
        text.tokens.append(ANSWER[known])


def test_a_draft_never_runs_into_the_next_text() -> None:
    store = store_with()
    store.leave(written([1, 2, 3, 4], [5, 6], 3, "alice"))
    draft = store.propose(written(PROMPT, ANSWER[:-2], 2, "alice"), 9)
    assert draft is not None
    assert list(draft.token_ids) == ANSWER[-2:]
    assert store.propose(written(PROMPT, ANSWER, 4, "alice"), 9) is None


@pytest.mark.parametrize("salt", ["bob", "", "alice "])
def test_another_client_finds_nothing(salt: str) -> None:
    store = store_with()
    assert store.propose(written(PROMPT, ANSWER[:9], 2, salt), 4) is None


def test_a_prompt_that_got_no_answer_is_not_kept() -> None:
    assert store_with(answer=[]).size == 0


def test_a_trail_ends_where_the_text_goes_another_way_and_is_found_again() -> None:
    store = store_with()
    text = written(PROMPT, ANSWER[:6], 2, "alice")
    assert store.propose(text, 1)
    text.tokens += [55]
    assert store.propose(text, 1) is None
    text.tokens += ANSWER[10:14]
    draft = store.propose(text, 2)
    assert draft is not None
    assert list(draft.token_ids) == ANSWER[14:16]


def test_old_texts_of_one_salt_go_first_and_the_rest_is_found() -> None:
    store = SuffixStore(shelf_tokens=200, store_tokens=10_000)
    rng = random.Random(1)
    answers = [rng.choices(range(1000), k=40) for _ in range(30)]
    reader = written(PROMPT, [], 99, "alice")
    for answer in answers:
        store.propose(reader, 1)
        store.leave(written([], answer, 1, "alice"))
        assert store.size <= 200
    found = [store.propose(written([], a[:8], 50 + n, "alice"), 1) for n, a in enumerate(answers)]
    assert found[0] is None
    assert found[-1] is not None
    assert list(found[-1].token_ids) == answers[-1][8:9]


def test_an_answer_longer_than_the_shelf_keeps_its_end() -> None:
    store = SuffixStore(shelf_tokens=64)
    answer = list(range(1000))
    store.leave(written([], answer, 1, "alice"))
    assert store.size <= 64
    draft = store.propose(written([], answer[980:990], 2, "alice"), 1)
    assert draft is not None
    assert list(draft.token_ids) == [990]


def test_the_salts_that_were_not_used_lately_go_when_there_are_too_many() -> None:
    store = SuffixStore(shelf_tokens=64, store_tokens=200)
    for number in range(20):
        store.leave(written([], ANSWER, 1, f"client {number}"))
        assert store.size <= 200
        assert store.size == sum(len(shelf.tokens) for shelf in store._shelves.values())
    assert store.propose(written([], ANSWER[:8], 2, "client 0"), 1) is None
    assert store.propose(written([], ANSWER[:8], 2, "client 19"), 1) is not None


def test_a_salt_that_was_thrown_out_and_came_back_confuses_no_reader() -> None:
    store = SuffixStore(shelf_tokens=64, store_tokens=100)
    reader = written(PROMPT, ANSWER[:8], 9, "alice")
    store.leave(written(PROMPT, ANSWER, 1, "alice"))
    assert store.propose(reader, 2)
    for number in range(9):
        store.leave(written([], ANSWER, 1, f"client {number}"))
    assert store.propose(reader, 2) is None
    store.leave(written([], [1, 2, 3, 4, 5], 1, "alice"))
    assert store.propose(reader, 2) is None
