"""What a constraint may cost: estimates made before it is compiled, because nothing can stop that.

Knows which constructs multiply (repeated groups, terminals in terminals, `multipleOf`) and no more;
must not know the library that compiles. llguidance bounds nesting, grammar size and the work of a
step by itself, but not these: a few bytes of them take minutes or gigabytes. All estimates are
upper bounds, so some harmless constraints are refused as well.
"""

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

import msgspec

from protocols.errors import Unsupported
from protocols.messages.ask import Constraint, Grammar, JsonSchema, RegularExpression

WEIGHT_MAX = 10_000
"""Characters of a regular expression written out, without counted repetitions."""
MULTIPLE_MAX = 10_000
"""The least common multiple of all `multipleOf`, in units of the last decimal of any."""
_TERMINALS_DEEP_MAX = 50
_REPEAT = re.compile(r"\{\s*(?P<least>\d*)\s*,?\s*(?P<most>\d*)\s*\}")
_LARK_REPEAT = re.compile(r"~\s*(?P<least>\d+)(?:\s*\.\.\s*(?P<most>\d+))?")
_GROUP_ENDS = frozenset(")}]*+? \t\r\n")
"""Before a count, these may end something that is long itself."""
_DEFINITION = re.compile(r"^[ \t]*[?!]*(?P<name>[A-Za-z_]\w*)[^\n:]*:", re.MULTILINE)
_TERMINAL = re.compile(r"\b_?[A-Z][A-Z0-9_]*\b")
_FOREIGN = re.compile(r"%\s*(?!ignore\b|import\b)\w+")


def check_cost(constraint: Constraint) -> None:
    """`Unsupported` if compiling or following `constraint` could take the node's time or memory."""
    match constraint:
        case JsonSchema(schema):
            _check_schema(schema)
        case RegularExpression(pattern):
            _check_weight(weight_of(pattern))
        case Grammar(lark):
            _check_grammar(lark)


def weight_of(pattern: str) -> int:
    """About as many characters as `pattern` has when all counted repetitions are written out."""
    total, factor = len(pattern), 1
    for found in _REPEAT.finditer(pattern):
        count = _count(found)
        if pattern[max(0, found.start() - 1)] in _GROUP_ENDS:
            factor *= count
        else:
            total += count
        if total * factor > WEIGHT_MAX:
            break
    return total * factor


def _count(found: "re.Match[str]") -> int:
    """How often at most; digits beyond any reason are cut before they cost something."""
    digits = [found[name] or "0" for name in ("least", "most")]
    return max(1, *(int(one) if len(one) < 10 else 10**10 for one in digits))


def _check_weight(weight: int) -> None:
    if weight > WEIGHT_MAX:
        raise Unsupported(
            "The constraint is too complex: its regular expressions repeat too much "
            f"(more than {WEIGHT_MAX} characters, written out)"
        )


def _check_schema(text: str) -> None:
    try:
        schema: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unsupported(f"The JSON schema is not valid JSON: {error}") from error
    multiples: set[Decimal] = set()
    weight = 0
    for one in _objects_in(schema):
        pattern, multiple = one.get("pattern"), one.get("multipleOf")
        if isinstance(pattern, str):
            weight += weight_of(pattern)
        if isinstance(multiple, int | float):
            multiples.add(Decimal(str(multiple)))
        keyed = one.get("patternProperties")
        if isinstance(keyed, dict):
            weight += sum(weight_of(str(key)) for key in keyed)
    _check_weight(weight)
    _check_multiples(multiples)


def _objects_in(schema: object) -> Iterator[Mapping[str, object]]:
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _check_multiples(multiples: set[Decimal]) -> None:
    """Several may apply to one number, and then their least common multiple does."""
    exponents = [_exponent(one) for one in multiples]
    last = min(exponents, default=0)
    if any(one.adjusted() - last > 9 for one in multiples):
        least = MULTIPLE_MAX + 1
    else:
        least = math.lcm(*(abs(int(one.scaleb(-last))) for one in multiples))
    if least > MULTIPLE_MAX:
        raise Unsupported(
            "The constraint is too complex: its 'multipleOf' have too large a common multiple "
            f"(more than {MULTIPLE_MAX} steps of the last decimal)"
        )


def _exponent(one: Decimal) -> int:
    exponent = one.normalize().as_tuple().exponent
    return min(0, exponent) if isinstance(exponent, int) else 0


def _check_grammar(lark: str) -> None:
    if foreign := _FOREIGN.search(lark):
        raise Unsupported(f"The grammar cannot be used: {foreign[0]!r} is not allowed in it")
    bodies = _terminals_of(lark)
    weights: dict[str, int] = {}
    for name in bodies:
        _check_weight(_terminal_weight(name, bodies, weights, _TERMINALS_DEEP_MAX))
    _check_weight(sum(weights.values()))


def _terminals_of(lark: str) -> dict[str, str]:
    """The bodies of all definitions by name: rules too, since they can hold expressions."""
    starts = [*_DEFINITION.finditer(lark)]
    ends = [found.start() for found in starts[1:]] + [len(lark)]
    bodies: dict[str, str] = {}
    for found, end in zip(starts, ends, strict=True):
        bodies[found["name"]] = bodies.get(found["name"], "") + lark[found.end() : end]
    return bodies


def _terminal_weight(
    name: str, bodies: Mapping[str, str], weights: dict[str, int], depth: int
) -> int:
    """Of a definition, with the terminals in it written out; `weights` remembers the terminals'."""
    if name in weights:
        return weights[name]
    if depth == 0:
        raise Unsupported(
            "The grammar cannot be used: its terminals refer to each other too deeply, or in a ring"
        )
    body = bodies[name]
    inside = sum(
        _terminal_weight(one, bodies, weights, depth - 1)
        for one in _TERMINAL.findall(body)
        if one in bodies and _TERMINAL.fullmatch(name)
    )
    repeats = math.prod(min(_count(found), WEIGHT_MAX) for found in _LARK_REPEAT.finditer(body))
    is_terminal = _TERMINAL.fullmatch(name) is not None
    factor = max(1, weight_of(body) // max(1, len(body))) * (repeats if is_terminal else 1)
    weight = weight_of(body) + inside * factor
    _check_weight(weight)
    weights[name] = weight
    return weight
