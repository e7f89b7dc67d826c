"""What one attack did to one victim: looked at from outside and asked from inside, then judged.

Knows how each attack of the suite harms plain hivemind; the same eyes look at our node.
"""

import time
from dataclasses import dataclass
from enum import StrEnum

from tests.attacks.harness import MEBIBYTE, Died, MemoryWatch, Worker, memory_of
from tests.attacks.programs import Answer, Command

RECORD = "7"
HOLD_SECONDS = 10.0
ARRIVAL_SECONDS = 180.0
"""How long an attacker's daemon and its way in may take in all, on a busy machine."""
STRANGER_SECONDS = 5.0
"""A stranger who is not let in within this time is shut out."""
_STALL_SECONDS = 0.5
_PLACES = 3
_HEAP = 100_000
_MEMORY = 64 * MEBIBYTE


class Harm(StrEnum):
    """Ways to suffer."""

    ENDED = "the process ended"
    LOST = "a live record was lost"
    HANGS = "reading a key hangs for ever"
    PLACES = "one peer holds the places near a key"
    STALLED = "the event loop stood still"
    HEAP = "entries that nobody frees"
    MEMORY = "memory grew"
    SHUT = "other peers are shut out"


PLAIN_FATE = {
    "nested_extensions": Harm.ENDED,
    "shorter_expiry": Harm.LOST,
    "plain_on_dictionary": Harm.LOST,
    "invalid_value_byte": Harm.HANGS,
    "chosen_node_ids": Harm.PLACES,
    "giant_find": Harm.STALLED,
    "rejected_stores": Harm.HEAP,
    "endless_values": Harm.MEMORY,
    "wide_tensor": Harm.MEMORY,
    "endless_message": Harm.MEMORY,
    "idle_streams": Harm.SHUT,
}
"""What was measured; a victim may suffer more than that."""


@dataclass(frozen=True, slots=True)
class Fate:
    """How a victim is after an attack: the harms, each with its figure."""

    harms: dict[Harm, str]

    def __str__(self) -> str:
        told = (f"{harm.value} ({figure})" for harm, figure in self.harms.items())
        return "; ".join(told) or "unharmed"


@dataclass(frozen=True, slots=True)
class Before:
    """What is compared with."""

    heap: int
    memory: int


class Witness:
    """Prepares a victim for one attack, and looks at it afterwards."""

    def __init__(self, victim: Worker, attack: str) -> None:
        self._victim = victim
        self._attack = attack
        self._key = f"attacked/{attack}"
        self._before = Before(0, 0)

    def prepare(self) -> Command:
        """Publish what may be lost; the command that starts the attack."""
        self._victim.ask(Command("put", self._key, RECORD))
        self._victim.ask(Command("stalled"))
        heap = self._victim.ask(Command("table")).count
        self._before = Before(heap, memory_of(self._victim.pid))
        key_id = self._victim.ask(Command("key_id", self._key)).found or ""
        return Command("attack", self._attack, key_id)

    def look(self, attacker: str, peak: int) -> Fate:
        """The fate; `peak` is the most memory that the victim had meanwhile."""
        try:
            return Fate(self._harms(attacker, peak))
        except Died as died:
            return Fate({Harm.ENDED: f"status {died.returncode}"})

    def _harms(self, attacker: str, peak: int) -> dict[Harm, str]:
        harms = {}
        if (stalled := self._victim.ask(Command("stalled")).seconds) > _STALL_SECONDS:
            harms[Harm.STALLED] = f"{stalled:.1f} s"
        found = self._victim.ask(Command("get", self._key))
        if found.error:
            harms[Harm.HANGS] = found.error
        elif found.found != RECORD:
            harms[Harm.LOST] = f"found {found.found}"
        places = self._victim.ask(Command("places", self._key, peer=attacker)).count
        if places > _PLACES:
            harms[Harm.PLACES] = f"{places} of 20"
        heap = self._victim.ask(Command("table")).count - self._before.heap
        if self._victim.arguments[0] == "plain" and heap > _HEAP:
            harms[Harm.HEAP] = f"{heap:,}"
        grown = peak - self._before.memory
        if grown > _MEMORY:
            harms[Harm.MEMORY] = f"by {grown // MEBIBYTE} MiB"
        return harms


class Unwelcome(Exception):
    """A newcomer was not let in."""


def arrive(attacker: Worker, command: Command, patience: float = 0.0) -> str:
    """Have a new peer come in; its id. Attackers try for long, `patience` is for others.

    Raises:
        Unwelcome: not let in.
    """
    command = Command("arrive", value=command.value, seconds=patience)
    answer = attacker.ask(command, ARRIVAL_SECONDS)
    if not answer.found:
        raise Unwelcome(answer.error)
    return answer.found


def suffer(victim: Worker, attacker: Worker, attack: str, seconds: float = 0.0) -> Fate:
    """Attack a victim, once at least, and see what becomes of it."""
    witness = Witness(victim, attack)
    command = witness.prepare()
    command.seconds = seconds
    arrive(attacker, command)
    with MemoryWatch([victim.pid]) as memory:
        answer = attacker.ask(command)
    if attack == "shorter_expiry":
        time.sleep(0.6)  # as long as the short-lived duplicate lives
    return witness.look(answer.found or "", memory.peaks[0])


def shut_out(victim: Worker, attacker: Worker, stranger: Worker, attack: str) -> Fate:
    """As `suffer`, while strangers try to come in and be answered as long as the attack lasts."""
    command = Witness(victim, attack).prepare()
    command.seconds = HOLD_SECONDS
    arrive(attacker, command)
    attacker.tell(command)
    errors = []
    while not attacker.has_answered:
        try:
            arrive(stranger, command, STRANGER_SECONDS)
            if not stranger.ask(Command("attack", "probe")).answered:
                errors.append("no answer")
        except Unwelcome as refused:
            errors.append(str(refused))
    attacker.receive(Answer)
    return Fate({Harm.SHUT: errors[0]} if errors else {})
