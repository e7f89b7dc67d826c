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

_NUMBER = re.compile(r"(?<![\w.,/:])\d+(?![\w/:%]|[.,]\d)")
"""A whole number that stands by itself: no part of a time, a fraction, a percentage or a word."""
_ANY_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")
_CALCULATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
_CONSTANTS = frozenset({1, 2, 4, 7, 10, 12, 24, 30, 31, 52, 60, 100, 365, 1000})
"""Numbers that may stand for days, months, halves: what they mean is not in the text."""
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_TRIES = 6


def with_other_numbers(
    question: str, answer: str, rng: np.random.Generator
) -> tuple[str, str] | None:
    """`question` and `answer` with one or two numbers changed and all that follows from them.

    None where that cannot be done safely: a calculation that does not come out, a number that
    stands for two things, results that would no longer be whole or positive.
    """
    calculations = [(found[1], found[2]) for found in _CALCULATION.finditer(answer)]
    free = _free_numbers(question)
    if not calculations or not free:
        return None
    for _ in range(_TRIES):
        count = min(len(free), int(rng.integers(1, 3)))
        chosen = rng.choice(sorted(free), size=count, replace=False)
        changes = {int(old): _another(int(old), rng) for old in chosen}
        values = _recomputed(calculations, changes)
        if values is not None and _is_plain(question, answer, values):
            return _replaced(question, values), _replaced(answer, values)
    return None


def _free_numbers(question: str) -> set[int]:
    """Those that stand once in the question and mean nothing by themselves."""
    every = [found.replace(",", "") for found in _ANY_NUMBER.findall(question)]
    alone = {int(found) for found in _NUMBER.findall(question)}
    return {
        number
        for number in alone - _CONSTANTS
        if every.count(str(number)) == 1 and 3 <= number <= 10_000
    }


def _another(number: int, rng: np.random.Generator) -> int:
    """Between half and twice as much, and not the same."""
    low, high = max(2, number // 2), max(number * 2, 9)
    other = int(rng.integers(low, high))
    return other if other < number else other + 1


def _recomputed(
    calculations: list[tuple[str, str]], changes: Mapping[int, int]
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
        if old in _CONSTANTS or old in constants or values.get(old, new) != new:
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
    ending = re.search(r"#### (\d+)$", answer)
    is_last = ending is not None and int(ending[1]) in values
    return not results & asked and right and bool(new) and is_last


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
