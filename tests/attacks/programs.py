"""The conversation with a child process: one JSON object a line, a command in, its answer out.

Knows the commands of all programs of the attack suite; must not know what they do.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

NICEST = 19


class Command(msgspec.Struct, omit_defaults=True):
    """What the harness tells a program to do; each command reads the fields that it needs."""

    do: str
    key: str = ""
    value: str = ""
    peer: str = ""
    seconds: float = 0.0


class Ready(msgspec.Struct):
    """The first line of every program. `daemons` are process ids of its libp2p daemons."""

    address: str = ""
    peer: str = ""
    daemons: list[int] = []


class Answer(msgspec.Struct, omit_defaults=True):
    """Everything that a simple command can answer."""

    found: str | None = None
    error: str = ""
    count: int = 0
    answered: int = 0
    held: int = 0
    seconds: float = 0.0


Handler = Callable[[Command], Awaitable[msgspec.Struct]]


def say(message: msgspec.Struct) -> None:
    """One line to the harness."""
    sys.stdout.write(msgspec.json.encode(message).decode() + "\n")
    sys.stdout.flush()


async def serve(handlers: Mapping[str, Handler]) -> None:
    """Carry out commands, one at a time, until standard input ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = msgspec.json.decode(line, type=Command)
        try:
            say(await handlers[command.do](command))
        except Exception as error:  # noqa: BLE001 - a task's top: the harness shall hear of it
            say(Answer(error=repr(error)[:500] or "failed"))


def be_another_machine() -> None:
    """Leave the processors to those who work: attackers stand for machines of their own.

    Nice values count within a session only where the kernel groups tasks by session, so the
    session's group is made nice, too. Children inherit both.
    """
    os.nice(NICEST)
    with suppress(OSError):
        Path(f"/proc/{os.getpid()}/autogroup").write_text(str(NICEST), encoding="ascii")
