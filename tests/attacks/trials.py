"""One attack against our node while honest peers work: idle and attacked windows, taking turns.

Knows how the figures of the promise are taken: every honest request answered, its p99 at most
twice the idle p99, memory within 64 MiB beyond the configured record store.
"""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.attacks.fates import Fate, Witness, arrive
from tests.attacks.harness import MEBIBYTE, TABLE_BYTES, MemoryWatch, Worker, memory_of, percentile
from tests.attacks.honest import Window
from tests.attacks.programs import Answer, Command

MEMORY_MAX = 64 * MEBIBYTE
SLOWDOWN_MAX = 2.0
SETTLE_SECONDS = 1.0
"""After an attack, before the next idle window."""
REST_SECONDS = 0.5
"""Windows of an attack that takes longer than it should."""
WARM_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a trial is: so many pairs of windows of so many seconds each.

    Without `has_idle_windows` speed is not compared.
    """

    pairs: int
    seconds: float
    has_idle_windows: bool = True


@dataclass(slots=True)
class Outcome:
    """What one attack did to our node and to those who worked with it.

    `python_grown` and `daemon_grown` are bytes at the highest, `table_grown` what the record
    store took of the former; `sent` counts the attackers' messages,
    `answered` those that got an answer, `held` streams held at a time.
    """

    attack: str
    fate: Fate
    idle: Window = field(default_factory=Window)
    attacked: Window = field(default_factory=Window)
    python_grown: int = 0
    daemon_grown: int = 0
    table_grown: int = 0
    sent: int = 0
    answered: int = 0
    held: int = 0

    @property
    def failures(self) -> list[str]:
        """Honest requests that got no answer, or a wrong one."""
        return [*self.idle.failures, *self.attacked.failures]

    @property
    def requests(self) -> int:
        """Honest requests under attack."""
        return len(self.attacked.values())

    @property
    def memory(self) -> int:
        """Growth of node and daemon together, without what the record store holds."""
        return self.python_grown + self.daemon_grown - self.table_grown

    def slowdown(self, kind: str = "", fraction: float = 0.99) -> float:
        """The percentile under attack over the idle one, of all requests or those of a kind."""
        under = percentile(self.attacked.values(kind), fraction)
        return under / percentile(self.idle.values(kind), fraction)

    @property
    def kinds(self) -> list[str]:
        """Kinds of honest requests."""
        return sorted(self.attacked.latencies)


class Trial:
    """A node, honest peers and an attacker, all processes; use as a context.

    A meek attacker leaves the processors to the others, as if it had its own; on a busy machine
    that makes it slow to start.
    """

    def __init__(self, *, is_meek: bool = True) -> None:
        self._manners = ("meek",) if is_meek else ()
        self._stack = ExitStack()

    def __enter__(self) -> "Trial":
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="a-"))
            victim = Worker("victims", "ours", folder, str(TABLE_BYTES))
            self.victim = stack.enter_context(victim)
            address = victim.ready.address
            honest = Worker("honest", folder, address)
            attacker = Worker("attackers", address, *self._manners)
            self.honest = stack.enter_context(honest)
            self.attacker = stack.enter_context(attacker)
            self.honest.tell(Command("publish"))
            self.honest.receive(Window)
            self.work(WARM_SECONDS)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def work(self, seconds: float) -> Window:
        """Honest requests, and nothing else."""
        self.honest.tell(Command("work", seconds=seconds))
        return self.honest.receive(Window)

    def run(self, attack: str, plan: Plan) -> Outcome:
        """Windows without and with the attack, in turns."""
        witness = Witness(self.victim, attack)
        command = witness.prepare()
        command.seconds = plan.seconds
        outcome, attacker = Outcome(attack, Fate({})), ""
        pids = [self.victim.pid, *self.victim.ready.daemons]
        table = self.victim.ask(Command("table")).count
        before = [memory_of(pid) for pid in pids]
        with MemoryWatch(pids) as memory:
            for _ in range(plan.pairs):
                attacker = arrive(self.attacker, command)
                if plan.has_idle_windows:
                    time.sleep(SETTLE_SECONDS)
                    outcome.idle.add(self.work(plan.seconds))
                self.attacker.tell(command)
                outcome.attacked.add(self.work(plan.seconds))
                while not self.attacker.has_answered:
                    outcome.attacked.add(self.work(REST_SECONDS))
                answer = self.attacker.receive(Answer)
                if answer.error:
                    raise RuntimeError(f"the attacker failed: {answer.error}")
                outcome.sent += answer.count
                outcome.answered += answer.answered
                outcome.held = max(outcome.held, answer.held)
        grown = [peak - start for peak, start in zip(memory.peaks, before, strict=True)]
        outcome.python_grown, outcome.daemon_grown = grown[0], sum(grown[1:])
        outcome.table_grown = max(0, self.victim.ask(Command("table")).count - table)
        outcome.fate = witness.look(attacker, memory.peaks[0])
        return outcome


def try_alone(attack: str, plan: Plan) -> Outcome:
    """One attack on a node of its own."""
    with Trial() as trial:
        return trial.run(attack, plan)


def missed(outcome: Outcome) -> list[str]:
    """What was promised and not kept; empty if all was."""
    found = [] if not outcome.fate.harms else [str(outcome.fate)]
    if outcome.failures:
        found.append(f"{len(outcome.failures)} honest requests failed: {outcome.failures[:3]}")
    if outcome.memory > MEMORY_MAX:
        found.append(f"memory grew by {outcome.memory // MEBIBYTE} MiB")
    if (ratio := outcome.slowdown()) > SLOWDOWN_MAX:
        found.append(f"honest requests are {ratio:.1f} times as slow at p99")
    return found
