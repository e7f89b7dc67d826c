"""Jinja for templates that strangers wrote: a sandbox in which all work is paid for beforehand.

Knows Jinja's syntax tree, operators, filters and methods; must not know conversations. Each turn of
a loop, each call and each operation whose cost depends on its operands is counted against the
budget, and what could make a large value out of small ones is bounded before it happens.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from node.hosting.template_budget import (
    INTEGER_BITS_MAX,
    Budget,
    OverBudget,
    depth_of,
    formatted_length,
    joined_length,
    replaced_length,
)

_WITHOUT = """
    filesizeformat forceescape pprint random striptags urlize wordwrap xmlattr
    """.split()  # noqa: SIM905 - a list would be a column of words
"""Filters for web pages; some of them take time that grows with the square of a text."""
_TEXT_METHODS = frozenset(
    """
    capitalize casefold center count endswith expandtabs find format index isalnum
    isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable
    isspace istitle isupper join ljust lower lstrip partition removeprefix
    removesuffix replace rfind rindex rjust rpartition rsplit rstrip split
    splitlines startswith strip swapcase title upper zfill
    """.split()  # noqa: SIM905 - a list would be a column of words
)
_NUMBER_MAX = 10_000
"""Widths and counts that filters and methods are given."""
_LAZY = frozenset(
    """
    map select reject selectattr rejectattr first last length count default d items
    list batch slice reverse
    """.split()  # noqa: SIM905 - a list would be a column of words
)
"""Filters that look at the top of a value only."""
_HELD, _WEIGHED, _TICK = "(held)", "(weighed)", "(tick)"
"""Names that no template can spell."""
_FACTOR = 8
"""How much longer a text gets when it is escaped, quoted or its case is changed."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Compiles templates that pay; render them within `spending`. May be used by many threads."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - Jinja's options
        super().__init__(**options, finalize=self._finalize)
        self._spent = threading.local()
        del self.globals["lipsum"]
        for name in _WITHOUT:
            del self.filters[name]

    def seal(self) -> None:
        """Put prices on all filters and tests. To be called once, after the last was added."""
        filters: dict[str, Callable[..., Any]] = {**vars(self)["filters"]}
        for name, function in filters.items():
            self.filters[name] = self._priced(name, function)
        tests: dict[str, Callable[..., Any]] = {**vars(self)["tests"]}
        for name, function in tests.items():
            self.tests[name] = self._priced(name, function)
        self.filters |= {_HELD: self._weighed, _WEIGHED: self._weighed, _TICK: self._ticked}

    @contextmanager
    def spending(self, budget: Budget) -> Iterator[None]:
        """Whatever this thread renders meanwhile is paid from `budget`."""
        self._spent.budget = budget
        try:
            yield
        finally:
            del self._spent.budget

    @property
    def budget(self) -> Budget:
        """What the rendering at work on this thread has left."""
        found: Budget = self._spent.budget
        return found

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        paying: nodes.Template = _Pricing(self).visit(tree)
        return paying

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        """An operation, paid for."""
        self.budget.step()
        if isinstance(left, int | float) and isinstance(right, int | float):
            _check_numbers(operator, left, right)
        elif operator == "*":
            self.budget.take(_times(self.budget, left, right) + _times(self.budget, right, left))
        elif operator == "%" and isinstance(left, str):
            weight = self.budget.weigh(right)
            self.budget.take(formatted_length(left, weight))
        else:
            self.budget.weigh(left)
            self.budget.weigh(right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, N805
        """A call of a method, a macro or a global, paid for."""
        budget = __self.budget
        budget.step()
        if not isinstance(__obj, Macro):  # which looks at nothing by itself
            budget.weigh(args)
            budget.weigh(kwargs)
        # A method of a text that is formatted is Jinja's own function around the built-in one.
        method = getattr(__obj, "__wrapped__", __obj)
        if isinstance(method, BuiltinMethodType):
            _check_method(budget, method, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        budget.weigh(result)
        return result

    def getitem(self, obj: Any, argument: Any) -> Any:  # noqa: ANN401
        """An item; a key that is no text or number may be large."""
        if not isinstance(argument, str | int):
            self.budget.weigh(argument)
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ANN401
        """Of the methods of texts only those whose cost is known; of numbers and bytes none."""
        if isinstance(obj, str):
            return attr in _TEXT_METHODS
        if isinstance(obj, int | float | bytes):
            return False
        return super().is_safe_attribute(obj, attr, value)

    @pass_context
    def _finalize(self, _context: Context, value: object) -> object:
        """Wanting a context keeps Jinja from computing constants while it compiles: `10 ** 10 ** 9`
        would stop a node from starting.
        """
        self.budget.step()
        self.budget.weigh(value)
        return value

    def _weighed(self, value: object) -> object:
        self.budget.step()
        self.budget.weigh(value)
        return value

    def _ticked(self, units: int) -> bool:
        self.budget.step()
        self.budget.take(units)
        return True

    def _priced(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed = getattr(function, "jinja_pass_arg", None)
        skipped = 0 if passed is None else 1

        def paying(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            own, values = args[:skipped], list(args[skipped:])
            self._charge_filter(name, values, kwargs)
            result = function(*own, *values, **kwargs)
            self.budget.step()
            if name not in _LAZY:
                self.budget.weigh(result)
            elif isinstance(result, list):
                self.budget.step(len(result))
            return result

        if passed is not None:
            vars(paying)["jinja_pass_arg"] = passed
        return paying

    def _charge_filter(self, name: str, values: list[Any], kwargs: dict[str, Any]) -> None:
        budget = self.budget
        options = [*values[1:], *kwargs.values()]
        if any(isinstance(one, int) and abs(one) > _NUMBER_MAX for one in options) and (
            name in _SIZED
        ):
            raise OverBudget(f"it gives the filter {name} a great number")
        if name in _LAZY:
            return
        if values and isinstance(values[0], Iterator):
            values[0] = list(values[0])  # else it could not be weighed
        weight = budget.weigh(options) + (budget.weigh(values[0]) if values else 0)
        budget.take(_FACTOR * weight)
        if charge := _FILTERS.get(name):
            charge(budget, weight, values, options)


class _Pricing(NodeTransformer):
    """Puts what counts into a template's syntax tree."""

    def __init__(self, environment: BoundedEnvironment) -> None:
        self._environment = environment

    def _filter(self, inner: nodes.Expr, name: str) -> nodes.Expr:
        made = nodes.Filter(inner, name, [], [], None, None)
        made.set_lineno(inner.lineno, override=False)
        made.set_environment(self._environment)
        return made

    def _tick(self, body: list[nodes.Node], lineno: int) -> nodes.Expr:
        texts = (text for node in body for text in node.find_all(nodes.TemplateData))
        own = (node for node in body if isinstance(node, nodes.TemplateData))
        units = sum(len(text.data) for text in (*texts, *own))
        return self._filter(nodes.Const(units, lineno=lineno), _TICK)

    def _with_tick(self, node: Any) -> nodes.Node:  # noqa: ANN401 - three kinds of node
        tick = self._tick(node.body, node.lineno)
        node = self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        made: nodes.Node = node
        return made

    visit_Macro = visit_CallBlock = visit_Block = _with_tick  # noqa: N815 - Jinja's names

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """Each turn, and each item that is left out, costs a step."""
        self._with_tick(node)
        if node.test is not None:
            tick = self._filter(nodes.Const(0, lineno=node.lineno), _TICK)
            node.test = nodes.And(tick, node.test, lineno=node.lineno)
        return node

    def _held(self, node: nodes.Expr) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        is_target = getattr(node, "ctx", "load") != "load"
        return node if is_target else self._filter(node, _HELD)

    visit_List = visit_Dict = visit_Tuple = _held  # noqa: N815

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """A slice is a copy."""
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        return self._filter(node, _HELD)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """What is joined is written out."""
        self.generic_visit(node)
        node.nodes = [self._weighed(one) for one in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Values are compared part by part."""
        self.generic_visit(node)
        node.expr = self._weighed(node.expr)
        for operand in node.ops:
            operand.expr = self._weighed(operand.expr)
        return node

    def _weighed(self, node: nodes.Expr) -> nodes.Expr:
        return node if isinstance(node, nodes.Const) else self._filter(node, _WEIGHED)


def _check_numbers(operator: str, left: float, right: float) -> None:
    if not isinstance(left, int) or not isinstance(right, int):
        return
    bits = left.bit_length() + right.bit_length()
    if operator == "**" and right > 0:
        bits = left.bit_length() * right
    if bits > 2 * INTEGER_BITS_MAX:
        raise OverBudget("it computes with numbers that are too long")


def _times(budget: Budget, items: object, count: object) -> int:
    if isinstance(count, int) and not isinstance(items, int):
        return budget.weigh(items) * max(0, count)
    return 0


def _check_method(
    budget: Budget, method: BuiltinMethodType, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    text, values = method.__self__, [*args, *kwargs.values()]
    weight = budget.weigh(text)
    if not isinstance(text, str):
        return
    is_great = any(isinstance(one, int) and abs(one) > _NUMBER_MAX for one in values)
    if is_great and method.__name__ != "format":
        raise OverBudget(f"it gives the method {method.__name__} a great number")
    budget.take(_FACTOR * weight)
    _charge_text(budget, method.__name__, text, values)


def _charge_text(budget: Budget, name: str, text: str, values: list[Any]) -> None:
    match name, values:
        case "replace", [str(old), str(new), *_]:
            budget.take(_FACTOR * replaced_length(text, old, new))
        case "join", [items, *_]:
            budget.take(_FACTOR * joined_length(text, items))
        case "format", _:
            budget.take(formatted_length(text, budget.weigh(values)))
        case "expandtabs", _:
            size = next((one for one in values if isinstance(one, int)), 8)
            budget.take(text.count("\t") * size)
        case (("split" | "rsplit" | "splitlines"), _):
            budget.take(_FACTOR * len(text))


def _charge_replace(budget: Budget, _weight: int, values: list[Any], options: list[Any]) -> None:
    texts = [str(one) for one in options[:2]]
    if len(texts) == 2:
        # Named arguments come in any order.
        text = str(values[0])
        longer = max(replaced_length(text, *texts), replaced_length(text, *texts[::-1]))
        budget.take(_FACTOR * longer)


def _charge_join(budget: Budget, _weight: int, values: list[Any], options: list[Any]) -> None:
    separator = max((str(one) for one in options), key=len, default="")
    budget.take(_FACTOR * joined_length(separator, values[0]))


def _charge_format(budget: Budget, weight: int, values: list[Any], _options: list[Any]) -> None:
    budget.take(formatted_length(str(values[0]), weight))


def _charge_indent(budget: Budget, _weight: int, values: list[Any], options: list[Any]) -> None:
    lines = 1 + len(str(values[0]).splitlines())
    budget.take(lines * _width(options))


def _charge_json(budget: Budget, weight: int, values: list[Any], options: list[Any]) -> None:
    width = _width(options)
    budget.take(weight * width * depth_of(values[0]) if width else 0)


def _charge_sum(budget: Budget, _weight: int, _values: list[Any], options: list[Any]) -> None:
    if any(not isinstance(one, int | float | str | None) for one in options):
        raise OverBudget("it sums what are no numbers")
    budget.take(0)


def _charge_sorted(budget: Budget, weight: int, _values: list[Any], _options: list[Any]) -> None:
    budget.take(weight * weight.bit_length())


def _width(options: list[Any]) -> int:
    widths = [one if isinstance(one, int) else len(str(one)) for one in options]
    return sum(max(0, width) for width in widths)


_SIZED = frozenset(["center", "indent", "round", "tojson", "truncate", "batch", "slice"])
_FILTERS: dict[str, Callable[[Budget, int, list[Any], list[Any]], None]] = {
    "replace": _charge_replace,
    "join": _charge_join,
    "format": _charge_format,
    "indent": _charge_indent,
    "tojson": _charge_json,
    "sum": _charge_sum,
    **dict.fromkeys(("sort", "dictsort", "groupby", "unique"), _charge_sorted),
}
