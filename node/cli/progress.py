"""Progress bars on stderr for waits of more than a moment.

Knows rich, which is imported when the first bar opens; must not know what is waited for. Without
a terminal each bar is one line at its start.
"""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from node.cli.output import tell
from node.quantities import format_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bars:
    """One bar at a time; implements `node.hosting.download.Progress`. Close it, or use `with`."""

    def __init__(self, is_terminal: bool | None = None) -> None:
        self._is_terminal = sys.stderr.isatty() if is_terminal is None else is_terminal
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish()

    def start(self, label: str, total: int) -> None:
        """A bar in bytes; `total` 0 if it is not known."""
        self._open(label, total or None, in_bytes=True)

    def start_count(self, label: str, total: int) -> None:
        """A bar of things, as in `nodes ready 2/3`."""
        self._open(label, total, in_bytes=False)

    def advance_to(self, done: int) -> None:
        """Bytes or things done so far."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done)

    def finish(self) -> None:
        """Close the bar, leaving its last state on the screen."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = None
        self._task = None

    def note(self, text: str) -> None:
        """A line of its own."""
        tell(text)

    def _open(self, label: str, total: int | None, *, in_bytes: bool) -> None:
        self.finish()
        if not self._is_terminal:
            size = f" ({format_size(total)})" if in_bytes and total else ""
            tell(f"{label}{size} ...")
            return
        self._progress = _make_progress(in_bytes=in_bytes)
        self._progress.start()
        self._task = self._progress.add_task(label, total=total)


def _make_progress(*, in_bytes: bool) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    amount = DownloadColumn() if in_bytes else MofNCompleteColumn()
    return Progress(
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=30),
        amount,
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
