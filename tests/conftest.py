"""Fixtures for all tests, and the rule that a skip must be expected.

Where `DSLM_ALLOWED_SKIPS` names a file, each line of it is the start of a skip reason; a run in
which a test skips for any other reason fails.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

_unexpected = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_unexpected] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _note_skip(item, str(call.excinfo.value) if call.excinfo else "no reason")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _note_skip(collector, str(report.longrepr).partition("Skipped: ")[2].rstrip("'\")"))
    return report


def _note_skip(node: pytest.Item | pytest.Collector, reason: str) -> None:
    allowed = os.environ.get("DSLM_ALLOWED_SKIPS")
    lines = Path(allowed).read_text().splitlines() if allowed else [""]
    if allowed and not any(line and reason.startswith(line) for line in lines):
        node.config.stash[_unexpected].append(f"{node.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash[_unexpected]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for line in config.stash[_unexpected]:
        terminalreporter.write_line(f"unexpected skip: {line}", red=True)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder into which `scripts/test` fetches models; shared with daily use."""
    import platformdirs

    override = os.environ.get("DSLM_MODELS_DIR")
    return Path(override) if override else platformdirs.user_cache_path("dslm") / "models"


@pytest.fixture(scope="session")
def smollm2_path(models_dir: Path) -> Path:
    """SmolLM2-135M-Instruct as GGUF; skips when `scripts/test` has not fetched it."""
    from node.hosting.fetch import default_model_path

    path = default_model_path(models_dir)
    if not path.exists():
        pytest.skip(f"the default model is not at {path}: run scripts/test, which fetches it")
    return path
