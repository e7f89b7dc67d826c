"""The sizes that keep a file one idea and a function one screen."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
SCRIPT_LINES_MAX = 20


def _sources() -> list[Path]:
    packages = ("node", "coordinator", "protocols")
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _too_large(path: Path, text: str) -> list[str]:
    found = []
    if (lines := len(text.splitlines())) > FILE_LINES_MAX:
        found.append(f"{path}: {lines} lines, at most {FILE_LINES_MAX}")
    for function in _functions(ast.parse(text)):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > FUNCTION_LINES_MAX:
            found.append(f"{path}:{function.lineno}: {function.name} has {length} lines")
    return found


def test_files_and_functions_are_small() -> None:
    sources = _sources()
    assert len(sources) > 50
    found = [
        complaint
        for path in sources
        for complaint in _too_large(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_modules_say_what_they_know() -> None:
    bare = [
        str(path.relative_to(ROOT))
        for path in _sources()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not bare


def test_scripts_are_short_and_strict() -> None:
    scripts = sorted((ROOT / "scripts").iterdir())
    assert {"setup", "quickstart", "test", "check", "fix", "bench"} <= {
        path.name for path in scripts
    }
    for path in scripts:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) < SCRIPT_LINES_MAX, path
        assert lines[0] == "#!/usr/bin/env bash", path
        assert "set -euo pipefail" in lines, path
        assert path.stat().st_mode & 0o111, path


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("x = 1\n" * (FILE_LINES_MAX + 1), 1),
        ("def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX, 1),
        ("def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1), 0),
    ],
)
def test_the_measure_measures(text: str, complaints: int) -> None:
    assert len(_too_large(Path("sample.py"), text)) == complaints
