"""How much work and memory one rendering of a chat template may take, and what values weigh.

Knows plain values and Jinja's namespaces; must not know how a template is compiled. A unit is about
one character copied, a step one operation or one look at a value; no value is looked into further
than the budget that is left.
"""

import re
from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView

import jinja2
from jinja2.utils import Namespace

UNITS = 1_000_000
"""For any conversation, however short."""
UNITS_PER_CHARACTER = 200
STEPS = 20_000
"""Operations and looks at a value, each some microseconds, for any conversation."""
STEPS_PER_MESSAGE = 500
INTEGER_BITS_MAX = 4_096
_NODE = 8
_NUMBER = re.compile(r"\d+")
_COMPUTED_WIDTH = re.compile(r"%[^%a-zA-Z]*\*|\{[^{}]+\{")
"""A width that stands in the arguments: nothing tells how large it is before it is too late."""


class OverBudget(jinja2.TemplateError):
    """A template does more than any conversation calls for."""


class Budget:
    """What is left for one rendering."""

    def __init__(self, characters: int, messages: int) -> None:
        self._left = UNITS + UNITS_PER_CHARACTER * characters
        self._steps = STEPS + STEPS_PER_MESSAGE * messages

    def step(self, count: int = 1) -> None:
        """Pay for operations as such, before they are done."""
        self._steps -= count
        if self._steps < 0:
            raise OverBudget("it computes too much")

    def take(self, units: int) -> None:
        """Pay for work, before it is done; `OverBudget` if there is too little left."""
        self._left -= units
        if self._left < 0:
            raise OverBudget("it computes too much")

    def weigh(self, value: object) -> int:
        """Pay for a look at all of `value`, and say what it weighs.

        What is referred to twice counts twice, as it does when it is written out or compared.
        """
        total, level = 0, [value]
        while level:
            below: list[object] = []
            for one in level:
                weight = _own_weight(one)
                total += weight
                self.step()
                if total > self._left:
                    raise OverBudget("it makes too large a value")
                if not isinstance(one, str | int | float | None):
                    below.extend(_parts(one))
            level = below
        self.take(total)
        return total


def _own_weight(value: object) -> int:
    if isinstance(value, str):
        return _NODE + len(value)
    if isinstance(value, int):
        return _NODE + value.bit_length() // 8
    if isinstance(value, range):
        return _NODE + len(value)
    if isinstance(value, Sequence | Mapping | set):
        return _NODE + _NODE * len(value)
    return _NODE


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, Namespace):
        value = object.__getattribute__(value, "_Namespace__attrs")
    if isinstance(value, Mapping):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset | KeysView | ItemsView | ValuesView):
        yield from value


def depth_of(value: object) -> int:
    """How deep lists and dictionaries stand in each other; their weight has been paid."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [part for one in level for part in _parts(one)]
    return depth


def joined_length(separator: object, items: object) -> int:
    """How much longer than its items their join is, at most."""
    return len(str(separator)) * len(items) if isinstance(items, Sequence | Mapping) else 0


def replaced_length(text: str, old: str, new: str) -> int:
    """At most how long `text` is with `old` replaced."""
    return len(text) + text.count(old) * len(new)


def formatted_length(pattern: str, arguments_weight: int) -> int:
    """At most how long a text is that `%` or `format` makes; `OverBudget` if nobody can tell."""
    if _COMPUTED_WIDTH.search(pattern):
        raise OverBudget("it formats with a computed width")
    numbers = _NUMBER.findall(pattern)
    if any(len(number) > 6 for number in numbers):
        raise OverBudget("it formats to a great width")
    fields = pattern.count("%") + pattern.count("{")
    return len(pattern) + sum(map(int, numbers)) + fields * (400 + 6 * arguments_weight)
