"""What commands print: tables and JSON on stdout, everything else on stderr.

Knows text layout only; must not know what is shown.
"""

import sys
from collections.abc import Sequence

import msgspec


def show(text: str) -> None:
    """One line of what was asked for."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show_piece(text: str) -> None:
    """A piece of an answer that goes on."""
    sys.stdout.write(text)
    sys.stdout.flush()


def tell(text: str) -> None:
    """One line about what is going on."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def tell_dimly(text: str) -> None:
    """One line that matters less than what stands around it; dim on a terminal."""
    tell(f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() else text)


def show_json(value: object) -> None:
    """`value`, a struct or what JSON knows, on several lines."""
    show(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be; nothing is cut, so that pipes get it all."""
    for line in table_lines([titles, *rows]):
        show(line)


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length as aligned lines without trailing spaces."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def short_peer(peer: str) -> str:
    """A peer id for people: the end tells peers apart, the start is the same for all."""
    return f"..{peer[-8:]}" if len(peer) > 10 else peer


def optional(value: float | None, unit: str = "", digits: int = 1) -> str:
    """A measured number, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}{unit}"
