"""Does an answer survive the death of the peer that gives it, and how long is the gap?

Method: three real daemons on loopback; two host SmolLM2-135M-Instruct in fp32, the third hosts
nothing and is asked. An undisturbed answer is the reference. Then, while the same prompt is being
answered, a fault hits the serving peer after a random number of tokens: SIGKILL of its node,
SIGKILL of its network daemon (p2pd), SIGSTOP of its node; and SIGKILL during a sampled answer
(temperature 0.8, seeded). The token ids must equal the undisturbed ones. The gap is the longest
pause between two pieces of text after the fault. Killed nodes are replaced, stopped ones continued.

Run: `.venv/bin/python benchmarks/failover.py [--quick] [--seed N]`. Ten faults of each kind, three
with `--quick`.
"""

import argparse
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import msgspec
import psutil

from node.cli.trial_swarm import TrialNode, TrialSwarm, address_of
from node.config import environment
from node.config_reader import Overrides, load_process_config
from node.state import PeersState, PeerState
from report import Row, print_report

PROMPT = "Write a short story about a lighthouse keeper who finds a message in a bottle."
TOKENS = 96
DEADLINE_SECONDS = 2.0
"""The least that the asking node waits for a token; its own rule is max(2 s, 8 x average)."""
SETTLE_SECONDS = 60.0


class Wanted(msgspec.Struct):
    """Our extension of a request."""

    return_token_ids: bool = True


class Ours(msgspec.Struct):
    """Our extension of an answer."""

    token_ids: list[int] = []
    resumed: int = 0


class Delta(msgspec.Struct):
    """The text of a chunk."""

    content: str | None = None


class Choice(msgspec.Struct):
    """The only choice of a chunk."""

    delta: Delta


class Chunk(msgspec.Struct):
    """What is read of a chunk."""

    choices: list[Choice] = []
    dslm: Ours | None = None
    error: dict[str, str | None] | None = None


class Note(msgspec.Struct):
    """What is read of a comment."""

    phase: str
    peer: str = ""
    to_peer: str = ""


@dataclass
class Stream:
    """One answer as it came: when each piece arrived, and what it was in the end."""

    arrivals: list[float] = field(default_factory=list)
    peer: str = ""
    text: str = ""
    ids: tuple[int, ...] = ()
    resumed: int = 0


Piece = Callable[[Stream], None]


def ask(asker: TrialNode, temperature: float, after_piece: Piece = lambda _: None) -> Stream:
    """Stream one answer; `after_piece` is called after each piece of text."""
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
        "max_tokens": TOKENS,
        "temperature": temperature,
        "seed": 7,
        "dslm": Wanted(),
    }
    stream = Stream()
    with closing(asker.client.lines("/v1/chat/completions", body)) as lines:
        read_lines(lines, stream, after_piece)
    return stream


def read_lines(lines: Iterator[str], stream: Stream, after_piece: Piece) -> None:
    """Take a stream of events apart."""
    for line in lines:
        if line.startswith(": dslm "):
            note = msgspec.json.decode(line[7:], type=Note)
            stream.peer = note.to_peer or (note.peer if note.phase == "routed" else stream.peer)
        if not line.startswith("data: {"):
            continue
        chunk = msgspec.json.decode(line[6:], type=Chunk)
        if chunk.error is not None:
            raise RuntimeError(f"the answer failed: {chunk.error}")
        if chunk.dslm is not None:
            stream.ids, stream.resumed = tuple(chunk.dslm.token_ids), chunk.dslm.resumed
        for choice in chunk.choices:
            if choice.delta.content:
                stream.arrivals.append(time.monotonic())
                stream.text += choice.delta.content
                after_piece(stream)


class Trial:
    """A swarm in which peers die and are replaced."""

    def __init__(self, swarm: TrialSwarm, rng: random.Random) -> None:
        self._swarm = swarm
        self._rng = rng
        self._count = 0
        self.asker = swarm.start("asker", "none")
        swarm.wait_ready([self.asker], SETTLE_SECONDS)
        self._address = address_of(self.asker)
        for _ in range(2):
            self._add_host()
        self._settle()

    def disturb(self, fault: str, temperature: float, pieces: int) -> tuple[Stream, float]:
        """One answer with `fault` after `pieces` pieces; the answer and the gap in seconds."""
        hit: list[float] = []

        def strike(stream: Stream) -> None:
            if len(stream.arrivals) == pieces:
                self._strike(fault, self._host(stream.peer))
                hit.append(time.monotonic())

        stream = ask(self.asker, temperature, strike)
        times = [when for when in stream.arrivals if when >= hit[0]]
        gap = max(b - a for a, b in zip([hit[0], *times], times, strict=False))
        self._mend(fault)
        return stream, gap

    def _strike(self, fault: str, host: TrialNode) -> None:
        self._victim = host
        match fault:
            case "kill":
                host.process.kill()
            case "p2pd":
                for child in psutil.Process(host.process.pid).children():
                    if "p2pd" in child.name():
                        child.kill()
            case "stop":
                host.process.send_signal(signal.SIGSTOP)

    def _mend(self, fault: str) -> None:
        if fault == "kill":
            self._victim.process.wait()
            self._swarm.nodes.remove(self._victim)
            self._add_host()
        if fault == "stop":
            self._victim.process.send_signal(signal.SIGCONT)
        self._settle()

    def _add_host(self) -> None:
        self._count += 1
        node = self._swarm.start(f"host{self._count}", "smollm2", [self._address])
        self._swarm.wait_ready([node], SETTLE_SECONDS)

    def _host(self, peer: str) -> TrialNode:
        name = next(known.name for known in self._peers() if known.peer == peer)
        return next(node for node in self._swarm.nodes if node.name == name)

    def _peers(self) -> tuple[PeerState, ...]:
        return self.asker.client.get("/api/v1/peers", PeersState).peers

    def _settle(self) -> None:
        """Until both hosts are known and reachable again."""
        give_up = time.monotonic() + SETTLE_SECONDS
        wanted = {node.name for node in self._swarm.nodes if node is not self.asker}
        while time.monotonic() < give_up:
            known = [peer for peer in self._peers() if peer.name in wanted and peer.specialists]
            if len(known) == len(wanted) and all(self._answers(peer.peer) for peer in known):
                return
            time.sleep(0.2)
        raise RuntimeError("the swarm did not settle")

    def _answers(self, peer: str) -> bool:
        body = {"peer": peer, "count": 1}
        try:
            self.asker.client.post("/api/v1/ping", body, dict)
        except Exception:  # noqa: BLE001  (whatever is wrong, it is not there yet)
            return False
        return True


def rows_of(fault: str, outcomes: list[tuple[bool, float]], limit: float) -> list[Row]:
    """The figures of one kind of fault."""
    gaps = [gap for _, gap in outcomes]
    same = sum(is_same for is_same, _ in outcomes)
    worst = max(gaps)
    return [
        Row(
            f"{fault}: answers identical to the undisturbed one",
            same,
            f"of {len(outcomes)}",
            "undisturbed answer",
            same / len(outcomes),
            f"all {len(outcomes)}",
            same == len(outcomes),
        ),
        Row(f"{fault}: gap, median", statistics.median(gaps), "s"),
        Row(f"{fault}: gap, worst", worst, "s", None, None, f"under {limit:g} s", worst < limit),
    ]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three faults of each kind")
    parser.add_argument("--seed", type=int, default=1, help="of the random positions")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    count = 3 if arguments.quick else 10
    models = load_process_config(Overrides()).config.paths.models
    rows: list[Row] = []
    with TrialSwarm(models, environment(), precision="fp32") as swarm:
        trial = Trial(swarm, rng)
        references = {temperature: ask(trial.asker, temperature) for temperature in (0.0, 0.8)}
        for label, fault, temperature, limit in (
            ("node killed", "kill", 0.0, 1.0),
            ("node killed, sampled answer", "kill", 0.8, 1.0),
            ("p2pd killed", "p2pd", 0.0, 1.0),
            ("node stopped", "stop", 0.0, DEADLINE_SECONDS + 1.0),
        ):
            outcomes = []
            reference = references[temperature]
            for number in range(count):
                pieces = rng.randint(2, max(2, len(reference.arrivals) * 3 // 4))
                stream, gap = trial.disturb(fault, temperature, pieces)
                same = stream.ids == reference.ids and stream.text == reference.text
                outcomes.append((same, gap))
                print(
                    f"{label} {number + 1}/{count}: after {pieces} pieces, gap {gap:.2f} s, "
                    f"{'same' if same else 'DIFFERENT'}, resumed {stream.resumed}",
                    file=sys.stderr,
                )
            rows += rows_of(label, outcomes, limit)
    return print_report("failover", rows)


if __name__ == "__main__":
    sys.exit(main())
