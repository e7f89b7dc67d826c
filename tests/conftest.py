"""Fixtures for all tests, and the rule that a skip must be expected.

Where `DSLM_ALLOWED_SKIPS` names a file, each line of it is the start of a skip reason; a run in
which a test skips for any other reason fails.
"""

import os
from pathlib import Path

import pytest

# Before torch is imported. Several processes run the tests; if each computed with a thread for
# every core, their threads would spend half of the time waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_unexpected = pytest.StashKey[list[str]]()


class SkipWatch:
    """Notes skips that were not expected. Looks at reports, which arrive in one process even when
    several run the tests.
    """

    def __init__(self, config: pytest.Config) -> None:
        allowed = os.environ.get("DSLM_ALLOWED_SKIPS")
        self._expected = Path(allowed).read_text().splitlines() if allowed else None
        self._config = config
        self._config.stash[_unexpected] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report.nodeid, report.longrepr)

    def _note(self, test: str, told: object) -> None:
        reason = str(told[2] if isinstance(told, tuple) else told).removeprefix("Skipped: ")
        lines = self._expected
        if lines is not None and not any(line and reason.startswith(line) for line in lines):
            self._config.stash[_unexpected].append(f"{test}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SkipWatch(config))


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


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The public data sets; skips where there are none."""
    folder = os.environ.get("DSLM_DATA")
    if not folder:
        pytest.skip("DSLM_DATA names no folder with the data sets (see docs/LOG.md)")
    return Path(folder)
