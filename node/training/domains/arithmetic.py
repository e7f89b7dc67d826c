"""The same word problem with other numbers: GSM8K's answers carry their calculations with them.

Knows numbers in text; must not know sets or training. An answer says `48/2 = <<48/2=24>>24`: all
that follows from a number of the question can be computed again when that number changes.
"""

import ast
import operator
import re
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

_NUMBER = re.compile(
    r"(?<![\w.,/:])\d+(?![\w/:%]|[.,]\d| (?:day|night|hour|month)s? (?:a|an|per|each|every|of)\b)"
)
"""A whole number that stands by itself: no part of a time, a fraction, a percentage or a word, and
none of days a week, of which there are no more than seven.
"""
_ANY_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")
_OPERAND = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_EQUATION = re.compile(
    r"(?<![\d.>])([(.\d][\d+\-*/(). ]*[+\-*/][\d+\-*/(). ]*)=\s*\$?(\d[\d,]*(?:\.\d+)?)"
)
_CALCULATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
_MEANINGS = {
    number: re.compile(rf"\b(?:{words})")
    for number, words in {
        3: r"third|triple|thrice|trio|three|yard|feet|foot|tricycle|triang",
        4: r"quarter|four|week|month|square|quadr|season|side|gallon|wheel|leg|(dog|cat|car)s?\b",
        5: r"fifth|five|nickel|weekday|finger|toe|hand",
        6: r"sixth|six|half|cube|die|dice|weekday|saturday",
        7: r"seven|week|day|daily",
        8: r"eight|octo|spider|hours|gallon|pint|work",
        9: r"nine|ninth",
        10: r"ten|dime|decade|milli|centi",
        12: r"twel|dozen|month|year|annual|feet|foot|inch|hour|clock|noon|midnight|a\.?m\b|p\.?m\b",
        15: r"fifteen|quarter|hour|minute",
        16: r"sixteen|pound|ounce|oz|lb|cup|pint",
        20: r"twenty|score|nickel",
        24: r"twenty-four|day|daily|hour|dozen",
        25: r"twenty-five|quarter|cents?\b|coin",
        28: r"month|week|days|february",
        30: r"thirt|month|days|half|hour|minute|june|april|september|november",
        31: r"month|days|january|march|may|july|august|october|december",
        36: r"yard|inch|dozen|month|year",
        40: r"fort|week|work|overtime",
        48: r"day|dozen|hour",
        50: r"fift|half|percent|%|cents?\b|state",
        52: r"week|year|card|deck|annual",
        60: r"sixt|hour|minute|second",
        90: r"ninet|minute|hour|degree|angle",
        100: r"hundred|percent|%|cent|dollar|\$|met|score|grade|century|total",
        180: r"degree|angle|minute|hour|half",
        360: r"degree|angle|minute|hour|day|year",
        365: r"year|annual|day",
        500: r"half|five|kilo|gram|met|lit",
        1000: r"thousand|kilo|gram|met|lit|mill|km|kg|ml",
    }.items()
}
"""What a number may stand for beside what the text says it counts: a problem that speaks of weeks
may need a 7 that is in no sentence. Then it stays. Problems that speak of it in words are left too.
"""
_SMALL = 12
"""Up to here a number is often said in words, or counts what is enumerated."""
_NEVER = frozenset({0, 1, 2})
"""Halves, doubles, pairs and both: what these mean is seldom in the text."""
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_TRIES = 12


def with_other_numbers(
    question: str, answer: str, rng: np.random.Generator
) -> tuple[str, str] | None:
    """`question` and `answer` with one or two numbers changed and all that follows from them.

    None where that cannot be done safely: a calculation that does not come out, a number that
    stands for two things, results that would no longer be whole or positive.
    """
    calculations = [(found[1], found[2]) for found in _CALCULATION.finditer(answer)]
    fixed = _fixed(f"{question} {answer}")
    free = _free_numbers(question, fixed)
    if not calculations or not free or not _is_complete(question, calculations):
        return None
    for _ in range(_TRIES):
        count = min(len(free), int(rng.integers(1, 3)))
        chosen = rng.choice(sorted(free), size=count, replace=False)
        changes = {int(old): _another(int(old), rng) for old in chosen}
        values = _recomputed(calculations, changes, fixed)
        if values is not None and _is_plain(question, answer, values):
            return _replaced(question, values), _replaced(answer, values)
    return None


def _free_numbers(question: str, fixed: frozenset[int]) -> set[int]:
    """Those that stand once in the question and mean nothing by themselves."""
    every = [found.replace(",", "") for found in _ANY_NUMBER.findall(question)]
    alone = {int(found) for found in _NUMBER.findall(question)}
    return {
        number
        for number in alone - fixed
        if every.count(str(number)) == 1 and 3 <= number <= 100_000
    }


def _fixed(text: str) -> frozenset[int]:
    """Numbers that may mean something in `text` that it does not say with them."""
    plain = text.lower()
    return _NEVER | {number for number, words in _MEANINGS.items() if words.search(plain)}


def _is_complete(question: str, calculations: list[tuple[str, str]]) -> bool:
    """Whether each number that is calculated with is given, calculated before, or a usual one.

    Any other was calculated without being marked so, and would be left behind.
    """
    known = {_plain(found) for found in _ANY_NUMBER.findall(question)}
    for left, right in calculations:
        for number in {_plain(found) for found in _OPERAND.findall(left)} - known:
            if number > _SMALL and number not in _MEANINGS:
                return False
        known.add(_plain(right.strip()))
    return True


def _plain(number: str) -> Fraction:
    try:
        return Fraction(number.replace(",", ""))
    except ValueError:
        return Fraction(0)


def _another(number: int, rng: np.random.Generator) -> int:
    """Between half and twice as much, and not the same; as round as it, more often than not."""
    steps = [step for step in (2, 3, 4, 5, 6, 10, 12, 20, 25, 50, 100, 1000) if number % step == 0]
    step = int(rng.choice([1, *steps[-3:]]))
    low, high = max(2, number // 2), max(number * 2, 9)
    for _ in range(4):
        other = -(-int(rng.integers(low, high + 1)) // step) * step
        if other != number and other >= 2:
            return other
    return number + step


def _recomputed(
    calculations: list[tuple[str, str]], changes: Mapping[int, int], fixed: frozenset[int]
) -> dict[int, int] | None:
    """Old numbers to new ones, results included; None if one of them is not sound."""
    values = dict(changes)
    constants: set[int] = set()
    used: set[int] = set()
    for left, right in calculations:
        before, after = _evaluated(left, {}), _evaluated(left, values)
        stated = _evaluated(right, {})
        if before is None or after is None or stated != before:
            return None
        numbers = {int(found) for found in re.findall(r"(?<![\w.])\d+(?![\w.])", left)}
        used |= numbers
        constants |= numbers - values.keys()
        if after == before:
            continue
        if before.denominator != 1 or after.denominator != 1 or after <= 0:
            return None
        old, new = int(before), int(after)
        if old in fixed or old in constants or values.get(old, new) != new:
            return None
        values[old] = new
    return values if changes.keys() <= used else None


def _is_plain(question: str, answer: str, values: Mapping[int, int]) -> bool:
    """No changed result stands in the question, and no result that stayed equals a changed one."""
    asked = {found.replace(",", "") for found in _ANY_NUMBER.findall(question)}
    given = set(_NUMBER.findall(question))
    results = {str(old) for old in values} - given
    new = {left: str(_evaluated(left, values)) for left, _ in _CALCULATION.findall(answer)}
    rewritten = _replaced(answer, values)
    right = all(
        _evaluated(left, {}) == _evaluated(stated, {})
        for left, stated in _CALCULATION.findall(rewritten)
    )
    right = right and _equations(rewritten) == _equations(answer)
    ending = re.search(r"#### ([\d,]+)$", answer)
    is_last = ending is not None and int(ending[1].replace(",", "")) in values
    return not results & asked and right and bool(new) and is_last


def _equations(answer: str) -> list[bool]:
    """Of each equation that is not marked as a calculation, whether it comes out."""
    found = _EQUATION.findall(re.sub(r"<<[^<>]*>>", "", answer))
    return [_evaluated(left, {}) == _evaluated(right, {}) for left, right in found]


def _replaced(text: str, values: Mapping[int, int]) -> str:
    def new(found: re.Match[str]) -> str:
        plain = found[0].replace(",", "")
        return str(values[int(plain)]) if plain.isdigit() and int(plain) in values else found[0]

    return _ANY_NUMBER.sub(new, text)


def _evaluated(text: str, values: Mapping[int, int]) -> Fraction | None:
    """The value of an expression of numbers; None if it is anything else."""
    try:
        tree = ast.parse(text.strip().replace(",", ""), mode="eval").body
        return _value(tree, values)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, OverflowError):
        return None


def _value(tree: ast.expr, values: Mapping[int, int]) -> Fraction:
    match tree:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return Fraction(values.get(number, number))
        case ast.Constant(value=float(number)):
            return Fraction(str(number))
        case ast.BinOp(left, action, right) if type(action) in _OPERATORS:
            result: Fraction = _OPERATORS[type(action)](_value(left, values), _value(right, values))
            return result
        case ast.UnaryOp(ast.USub(), operand):
            return -_value(operand, values)
        case _:
            raise ValueError("no arithmetic")
