"""Functions of Python's standard library, as signatures with the bodies to be written.

Knows Python's syntax and where the library lies; must not know training. Each version of the
library gives other rows.
"""

import ast
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LEFT_OUT = frozenset(
    {"site-packages", "test", "tests", "idle_test", "lib2to3", "turtledemo", "ensurepip"}
)
_CHARACTERS_MAX = 3_000
_STATEMENTS_MIN = 1


@dataclass(frozen=True, slots=True)
class Function:
    """`head` is the signature with the documentation, `body` what follows, both without indent."""

    module: str
    head: str
    body: str
    is_documented: bool


def library_functions(root: Path | None = None) -> list[Function]:
    """Of all modules in the order of their names, tests left out.

    `root` holds the library of another version; by default it is that of this interpreter.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    found: list[Function] = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not _LEFT_OUT.intersection(parts):
            found += functions_in(".".join(parts).removesuffix(".__init__"), _text(path))
    return found


def functions_in(module: str, text: str) -> list[Function]:
    """All functions and methods in the text of a module; none if it is no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    lines = text.splitlines()
    return [one for node in ast.walk(tree) for one in _function(module, node, lines)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _function(module: str, node: ast.AST, lines: list[str]) -> Iterator[Function]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    is_documented = ast.get_docstring(node) is not None
    body = node.body[1:] if is_documented else node.body
    if len(body) < _STATEMENTS_MIN or all(_is_empty(statement) for statement in body):
        return
    start = min([node.lineno, *(one.lineno for one in node.decorator_list)]) - 1
    split, end = body[0].lineno - 1, node.end_lineno
    if split <= node.lineno - 1 or end is None:  # the body begins on the line of the signature
        return
    whole = textwrap.dedent("\n".join(lines[start:end])).splitlines()
    head, rest = whole[: split - start], whole[split - start :]
    text = "\n".join(rest).rstrip()
    if text and len("\n".join(whole)) <= _CHARACTERS_MAX:
        yield Function(module, "\n".join(head).rstrip(), text, is_documented)


def _is_empty(statement: ast.stmt) -> bool:
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_constant or isinstance(statement, ast.Pass)
