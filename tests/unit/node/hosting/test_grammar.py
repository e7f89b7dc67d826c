"""Constraints on a small tokenizer: what they allow, replays, and constraints made to do harm."""

import json
import random
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from node.hosting.grammar import GrammarMatcher, Grammars
from node.hosting.grammar_bounds import weight_of
from protocols.errors import Unsupported
from protocols.messages.ask import Constraint, Grammar, JsonSchema, RegularExpression
from tests.effort import examples

STOPS = frozenset({0, 2})
SCHEMA = JsonSchema(
    '{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},'
    ' "required": ["a", "b"], "additionalProperties": false}'
)


@pytest.fixture
def grammars(small_bpe: Tokenizer) -> Grammars:
    return Grammars(small_bpe, STOPS)


def ids_in(mask: bytes) -> list[int]:
    return [at for at in range(8 * len(mask)) if mask[at // 8] >> at % 8 & 1]


def walk(matcher: GrammarMatcher, seed: int, most: int = 200) -> list[int]:
    """A random answer, up to where it may end and does."""
    rng = random.Random(seed)
    answer: list[int] = []
    while len(answer) < most:
        token = rng.choice(ids_in(matcher.allowed(answer)))
        if token in STOPS:
            return answer
        answer.append(token)
    raise AssertionError("the answer does not end")


def test_whatever_is_drawn_follows_the_schema(grammars: Grammars, small_bpe: Tokenizer) -> None:
    seen = set()
    for seed in range(20):
        answer = walk(grammars.matcher(SCHEMA), seed)
        found = json.loads(small_bpe.decode(answer))
        assert set(found) == {"a", "b"}
        assert isinstance(found["a"], int)
        assert found["b"] in ("x", "y")
        seen.add(found["b"])
    assert seen == {"x", "y"}


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        (RegularExpression("(ab|cd){2,3}!"), "(ab|cd){2,3}!"),
        (Grammar('start: "yes" | "no" DIGIT+\nDIGIT: /[0-9]/'), "yes|no[0-9]+"),
    ],
)
def test_expressions_and_grammars(
    grammars: Grammars, small_bpe: Tokenizer, constraint: Constraint, pattern: str
) -> None:
    for seed in range(10):
        text = small_bpe.decode(walk(grammars.matcher(constraint), seed, 10_000))
        assert re.fullmatch(pattern, text)


def test_all_ends_are_allowed_where_the_answer_may_end_and_only_there(
    grammars: Grammars, small_bpe: Tokenizer
) -> None:
    matcher = grammars.matcher(RegularExpression("ab?"))
    a, b = small_bpe.encode("a").ids + small_bpe.encode("b").ids
    assert set(ids_in(matcher.allowed([]))) & STOPS == set()
    assert set(ids_in(matcher.allowed([a]))) >= STOPS | {b}
    assert set(ids_in(matcher.allowed([a, b]))) == STOPS
    assert matcher.failure == ""


@settings(max_examples=examples(100), deadline=None)
@example(3330, [15, 18])  # llguidance's own rollback fails here
@given(st.integers(0, 10_000), st.lists(st.integers(0, 30), max_size=8))
def test_what_is_allowed_depends_on_the_answer_alone(seed: int, visits: list[int]) -> None:
    """Asked in any order: forwards, backwards, about another answer, or by a peer that resumes."""
    grammars = Grammars(_tokenizer(), STOPS)
    one, other = walk(grammars.matcher(SCHEMA), seed), walk(grammars.matcher(SCHEMA), seed + 1)
    matcher = grammars.matcher(SCHEMA)
    for visit in visits:
        answer = (one if visit % 2 else other)[: visit // 2]
        fresh = grammars.matcher(SCHEMA)
        assert matcher.allowed(answer) == fresh.allowed(answer)
        assert fresh.failure == matcher.failure == ""


def _tokenizer() -> Tokenizer:
    from tests.unit.node.hosting.conftest import trained_bpe

    return trained_bpe()


def test_an_answer_outside_of_the_constraint_ends_and_says_so(
    grammars: Grammars, small_bpe: Tokenizer
) -> None:
    matcher = grammars.matcher(SCHEMA)
    assert set(ids_in(matcher.allowed(small_bpe.encode("no").ids))) == STOPS
    assert matcher.failure
    assert set(ids_in(matcher.allowed([]))) == STOPS, "a failure is for good"


def test_a_model_without_an_end_cannot_be_constrained(small_bpe: Tokenizer) -> None:
    with pytest.raises(Unsupported, match="end token"):
        Grammars(small_bpe, frozenset()).matcher(SCHEMA)


def doubling(count: int) -> str:
    chain = "\n".join(f"A{n}: A{n + 1} A{n + 1}" for n in range(count))
    return f"start: A0\n{chain}\nA{count}: /x/"


HARMFUL: list[Constraint] = [
    JsonSchema("{"),
    JsonSchema("[]"),
    JsonSchema('{"type": "strin"}'),
    JsonSchema('{"not": {"type": "string"}}'),
    JsonSchema('{"$ref": "#"}'),
    JsonSchema('{"$ref": "https://example.org/schema"}'),
    JsonSchema('{"type": "string", "pattern": "("}'),
    JsonSchema('{"type": "string", "pattern": "((a{100}){100}){100}"}'),
    JsonSchema('{"items": ' * 9_000 + "{}" + "}" * 9_000),
    JsonSchema('{"type": "integer", "multipleOf": 1000003}'),
    JsonSchema('{"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}], "type": "integer"}'),
    JsonSchema('{"multipleOf": 1e-300, "type": "number", "minimum": 1e300}'),
    RegularExpression("("),
    RegularExpression("(" * 30_000 + "a" + ")" * 30_000),
    RegularExpression("(\\)" * 9_000 + ")" * 9_000),
    RegularExpression("a{100000}"),
    RegularExpression("a{99999999999999999999999999}"),
    RegularExpression("((a{99}){99} ){99}"),
    RegularExpression("a{100}{100}{100}"),
    RegularExpression("(?x)(a{100}) {100}  {100}"),
    RegularExpression("\\p{L}{20000}"),
    Grammar("start: nothing"),
    Grammar("start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
    Grammar('start: %json {"multipleOf": 1000003}'),
    Grammar("start: @other"),
    Grammar(doubling(16)),
    Grammar(doubling(2_000)),
    Grammar("start: A\nA: B\nB: A"),
    Grammar("start: /((a{100}){100}){100}/"),
    Grammar("start: A\nA: B~1000\nB: C~1000\nC: /x/"),
]


@pytest.mark.parametrize("constraint", HARMFUL, ids=lambda one: str(one)[:60])
def test_what_would_do_harm_is_refused_at_once(grammars: Grammars, constraint: Constraint) -> None:
    grammars.matcher(RegularExpression("a"))
    started = time.process_time()
    with pytest.raises(Unsupported):
        grammars.matcher(constraint)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "constraint",
    [
        RegularExpression("a{9000}"),
        RegularExpression("(a|b)*a(a|b){20}"),
        RegularExpression("(\\p{L}|\\d){500}"),
        Grammar(doubling(7)),
        Grammar(
            "start: a0\n" + "\n".join(f"a{n}: a{n + 1} a{n + 1}" for n in range(40)) + '\na40: "x"'
        ),
        Grammar('start: s\ns: s s | "a" | ""'),
        JsonSchema('{"type": "string", "minLength": 1000000000}'),
        JsonSchema('{"type": "integer", "multipleOf": 9973}'),
        JsonSchema('{"type": "object"}'),
    ],
    ids=lambda one: str(one)[:60],
)
def test_what_is_let_in_takes_little_time_for_each_token(
    grammars: Grammars, constraint: Constraint
) -> None:
    try:
        matcher = grammars.matcher(constraint)
    except Unsupported:
        return
    rng, answer = random.Random(1), list[int]()
    started = time.process_time()
    for _ in range(50):
        answer.append(rng.choice(ids_in(matcher.allowed(answer))))
        if answer[-1] in STOPS:
            break
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("abc", 3, 3),
        (r"\d{4}-\d{2}", 6, 30),
        ("(ab){50}", 100, 500),
        ("((a{10}){10}){10}", 1_000, 100_000),
        ("a{3,7}", 7, 20),
        ("{}", 2, 10),
    ],
)
def test_the_weight_of_an_expression_is_about_its_length_written_out(
    pattern: str, least: int, most: int
) -> None:
    assert least <= weight_of(pattern) <= most
