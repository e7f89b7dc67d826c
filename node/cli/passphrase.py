"""Passphrases: typed without echo, or from a file that nobody else can read.

Knows terminals and that file; must not know what a passphrase opens.
"""

import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from node.cli.exits import UsageError
from protocols.errors import UserError

_FILE_BYTES_MAX = 4_096
PassphraseFlag = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File (mode 0600) with the owner's passphrase in it."),
]


def read_passphrase(file: Path | None, what: str) -> str:
    """The passphrase of `what`, from `file` or typed.

    `UsageError` if there is neither a file nor a terminal: a pipe would leave it in a history or
    in a list of processes.
    """
    if file is not None:
        return _from_file(file)
    _require_terminal()
    return getpass.getpass(f"passphrase of {what}: ")


def choose_passphrase(file: Path | None, what: str, check: Callable[[str], None]) -> str:
    """A new passphrase that `check` lets pass; typed twice. Errors as of `read_passphrase`."""
    chosen = read_passphrase(file, what)
    check(chosen)
    if file is None and getpass.getpass("the same again: ") != chosen:
        raise UserError("the two are not the same; nothing was made")
    return chosen


def _from_file(file: Path) -> str:
    from node.swarms.durable import read_file, require_private

    try:
        require_private(file)
    except OSError as error:
        raise UserError(f"cannot read the passphrase file {file}: {error.strerror}") from error
    try:
        text = read_file(file, _FILE_BYTES_MAX).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"the passphrase file {file} is not text in UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def _require_terminal() -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            "a passphrase is typed at a terminal, and this is none: use --passphrase-file FILE"
        )
