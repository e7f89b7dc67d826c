"""Do prompts of several subjects find several specialists in turn, and what if a peer dies?

Method: real daemons on loopback. The specialists that ship with dslm are shared out among three
nodes, each on two of them, with the base on all; a fourth hosts nothing and is asked. Where there
is an activated form it is taken, and all trust each other, so that keys and values are passed on
(in fp32, so that texts can be compared). Ten prompts
of two or three subjects are asked with the model `auto`, greedily. Then every prompt again while
the node that is to answer the first step that goes on from another one is killed before its first
token, and again while it is killed in the middle (of the first step if none goes on from another);
it is replaced afterwards. Where nothing ships yet, or with `--made-up`,
specialists are adapters that change next to nothing, with the cards of `chain_prompts`.

Run: `.venv/bin/python benchmarks/chains.py [--quick] [--made-up] [--tokens N] [--write PAGE]`.
With `--write docs/chains.md` it puts what was seen behind the marker line of that page.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from chain_prompts import PROMPTS, SUBJECTS, Composite
from chain_transcript import Seen, section, struck_section
from node.cli.answering import ChatMessage, ChatRequest, Note, ask_streaming
from node.cli.client import Client
from node.cli.trial_swarm import TrialNode, TrialSwarm, address_of
from node.config import environment
from node.config_reader import Overrides, load_process_config
from node.gateway.admin_token import read_token
from node.paths import paths_below
from node.shipped import Specialist, models_toml, share_out, shipped_specialists
from node.state import PeersState
from node.work_state import StatsState
from protocols.errors import DslmError
from report import Row, print_report

HOSTS = ("alder", "birch", "cedar")
COPIES = 2
TOKENS = 240
_LIVES = 24
"""Of a host, at most: it is killed once a prompt and round, at worst."""
START_SECONDS, MEET_SECONDS = 240.0, 90.0
KILL_AFTER_PIECES = 8
MARKER = "<!-- what follows is written by `scripts/bench chains --write docs/chains.md` -->"


class Swarm:
    """Three hosts that can die, and one node that is asked."""

    def __init__(self, swarm: TrialSwarm, specialists: Sequence[Specialist]) -> None:
        self._swarm = swarm
        self._shares = share_out(specialists, HOSTS, COPIES)
        self._names = [one.name for one in specialists]
        self._places: dict[str, str] = {}
        """What each host is for, by the name of its node: a replacement has another name."""
        successors = [_successor(host, number) for host in HOSTS for number in range(1, _LIVES)]
        swarm.befriend(["elm", *HOSTS, *successors])
        self.asker = swarm.start("elm", "none")
        swarm.wait_ready([self.asker], START_SECONDS)
        self._address = address_of(self.asker)
        for host in HOSTS:
            self._add(host, host)
        self._meet()

    def names(self) -> dict[str, str]:
        """What each known peer is called."""
        known = self.asker.client.get("/api/v1/peers", PeersState).peers
        return {peer.peer: peer.name for peer in known}

    def shares(self) -> list[str]:
        """Who hosts what, in words."""
        return [
            f"{host} hosts the base, {', '.join(one.name for one in share)}"
            for host, share in self._shares.items()
        ]

    def kill(self, name: str) -> str | None:
        """The node called `name` dies; the name again, None if it is no host."""
        for node in self._swarm.nodes:
            if node.name == name and node is not self.asker:
                self._swarm.kill(node)
                return name
        return None

    def mend(self) -> None:
        """Each dead host has a successor, which is known."""
        alive = {node.name for node in self._swarm.nodes}
        for name, place in list(self._places.items()):
            if name not in alive:
                del self._places[name]
                self._add(_successor(place, len(name.partition("-")[2]) + 1), place)
        self._meet()

    def _add(self, name: str, place: str) -> None:
        toml = f'{models_toml(self._shares[place])}[memory]\npages = "fp32"\n'
        node = self._swarm.start(name, "", [self._address], toml)
        self._swarm.wait_ready([node], START_SECONDS)
        self._places[name] = place

    def _meet(self) -> None:
        """Until the asker knows exactly the hosts that live, with all that they host."""
        self._swarm.wait_met(self.asker, len(HOSTS), MEET_SECONDS, self._names)
        owner = Client(self.asker.client.url, secret=token_of(self.asker))
        give_up = time.monotonic() + MEET_SECONDS
        while not self._all_answer(owner):
            if time.monotonic() > give_up:
                raise RuntimeError("the swarm did not settle")
            time.sleep(0.5)

    def _all_answer(self, owner: Client) -> bool:
        for peer in owner.get("/api/v1/peers", PeersState).peers:
            if peer.name in self._places:
                try:
                    owner.post("/api/v1/ping", {"peer": peer.peer, "count": 1}, dict)
                except DslmError:
                    return False
        known = set(self.names().values())
        return known.issuperset(self._places)


def _successor(place: str, number: int) -> str:
    return f"{place}-{'i' * number}"


def token_of(node: TrialNode) -> str:
    """The secret of a node's owner."""
    return read_token(paths_below(node.log.parent).admin_token_file)


class Striker:
    """Watches one answer, and kills a node in it: `between` two steps or `within` one, or never."""

    def __init__(self, swarm: Swarm, seen: Seen, fault: str) -> None:
        self._swarm = swarm
        self._seen = seen
        self._fault = fault
        self._began = time.monotonic()
        self._victim = 0
        """The step that is struck."""
        self._speaker: tuple[int, str] | None = None
        self._pieces = 0

    def hear(self, note: Note) -> None:
        """Something happened."""
        self._seen.notes.append((time.monotonic() - self._began, note))
        if note.phase == "planned" and note.plan is not None:
            steps = enumerate(note.plan.steps)
            self._victim = next((at for at, step in steps if step.after), 0)
        elif note.phase in {"step", "routed"}:
            self._speaker, self._pieces = (note.step, note.peer), 0
            if self._fault == "between" and note.step == self._victim > 0:
                self._strike()

    def read(self, piece: str) -> None:
        """Somebody said something."""
        self._pieces += bool(piece)
        is_due = self._fault == "within" and self._pieces == KILL_AFTER_PIECES
        if is_due and self._speaker is not None and self._speaker[0] == self._victim:
            self._strike()

    def _strike(self) -> None:
        at = time.monotonic() - self._began
        peer = self._speaker[1] if self._speaker else ""
        if name := self._swarm.kill(self._seen.names.get(peer, "")):
            self._seen.events.append((at, f"**{name} is killed**"))


def ask(swarm: Swarm, composite: Composite, tokens: int, fault: str = "") -> Seen:
    """One answer of at most `tokens`, with `fault`."""
    seen = Seen(composite, names=swarm.names())
    striker, began = Striker(swarm, seen, fault), time.monotonic()
    request = ChatRequest(
        model="auto",
        messages=[ChatMessage("user", composite.text)],
        max_tokens=tokens,
        temperature=0.0,
    )
    try:
        seen.answer = ask_streaming(
            swarm.asker.client, request, striker.read, striker.hear, lambda _: None
        )
    except DslmError as error:
        seen.error = str(error)
    seen.seconds = time.monotonic() - began
    return seen


def rounds(swarm: Swarm, prompts: Sequence[Composite], tokens: int, fault: str) -> list[Seen]:
    """All prompts, with what dies replaced after each."""
    found = []
    for number, composite in enumerate(prompts, start=1):
        seen = ask(swarm, composite, tokens, fault)
        found.append(seen)
        spoke = ", ".join(seen.specialists) or seen.error
        print(f"{fault or 'undisturbed'} {number}/{len(prompts)}: {spoke}, {seen.seconds:.1f} s",
              file=sys.stderr)  # fmt: skip
        if seen.events:
            swarm.mend()
    return found


def made_up(folder: Path) -> list[Specialist]:
    """A specialist for each subject whose adapter changes next to nothing."""
    from chain_adapters import write_faint_adapter

    found = []
    for seed, (name, (description, *examples)) in enumerate(SUBJECTS.items()):
        write_faint_adapter(folder / name, seed)
        found.append(Specialist(name, folder / name, (name,), description, tuple(examples)))
    return found


def rows_of(label: str, seen: Sequence[Seen], calm: Sequence[Seen] = ()) -> list[Row]:
    """The figures of one round; `calm` is the undisturbed one."""
    count = len(seen)
    whole = sum(one.is_whole for one in seen)
    several = sum(len(set(one.specialists)) > 1 for one in seen)
    rows = [
        Row(f"{label}: answers that are whole", whole, f"of {count}", target=f"{count}",
            met=whole == count),
        Row(f"{label}: answered by several specialists", several, f"of {count}"),
    ]  # fmt: skip
    if calm:
        struck = [(one, before) for one, before in zip(seen, calm, strict=True) if one.events]
        same = sum(
            one.answer is not None
            and before.answer is not None
            and one.answer.text == before.answer.text
            for one, before in struck
        )
        rows.append(Row(f"{label}: same text as undisturbed", same, f"of {len(struck)} struck"))
    return rows


def write(page: Path, found: dict[str, list[Seen]], about: Sequence[str]) -> None:
    """Put what was seen behind the marker line of `page`."""
    head = page.read_text(encoding="utf-8").partition(MARKER)[0] if page.exists() else ""
    lines = [MARKER, "", "## Ten prompts, end to end", "", *(f"- {text}" for text in about), ""]
    (title, calm), *others = found.items()
    lines += section(title, calm)
    for title, seen in others:
        lines += struck_section(title, seen, calm)
    text = "\n".join(lines).rstrip() + "\n"
    page.write_text(f"{head}{text}", encoding="utf-8")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two prompts")
    parser.add_argument("--made-up", action="store_true", help="made-up specialists")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of all steps of an answer")
    parser.add_argument("--write", type=Path, help="a page to put the transcript into")
    arguments = parser.parse_args()
    prompts = PROMPTS[:2] if arguments.quick else PROMPTS
    models = load_process_config(Overrides()).config.paths.models
    found: dict[str, list[Seen]] = {}
    about: list[str] = []
    with tempfile.TemporaryDirectory(prefix="dslm-") as name:
        shipped = shipped_specialists(activated=True)
        real = bool(shipped) and not arguments.made_up
        specialists = list(shipped) if real else made_up(Path(name))
        with TrialSwarm(models, environment(), precision="fp32") as trial:
            swarm = Swarm(trial, specialists)
            for title, fault in (
                ("Undisturbed", ""),
                ("A node is killed between two steps", "between"),
                ("A node is killed in the middle of a step", "within"),
            ):
                found[title] = rounds(swarm, prompts, arguments.tokens, fault)
                about = [*about_lines(swarm, specialists, real=real), limit_line(arguments.tokens)]
                if arguments.write:  # After each round: what was seen is not lost if one fails.
                    write(arguments.write, found, about)
            stats = swarm.asker.client.get("/api/v1/stats", StatsState)
    calm, *others = found.items()
    rows = rows_of(*calm)
    for title, seen in others:
        rows += rows_of(title, seen, calm[1])
    share = stats.parameters / max(1, stats.parameters_known)
    rows.append(Row("parameters at work of those known", 100 * share, "%"))
    rows.append(Row("specialists at work for an answer", stats.specialists / stats.answers, ""))
    return print_report("chains", rows, about)


def about_lines(swarm: Swarm, specialists: Sequence[Specialist], *, real: bool) -> list[str]:
    """What took part."""
    kind = "trained, as shipped" if real else "made up: they speak as the base does"
    return [
        f"{len(specialists)} specialists on SmolLM2-135M-Instruct in fp32 ({kind})",
        *swarm.shares(),
        f"load of the machine at the end: {psutil.getloadavg()[0]:.1f}",
    ]


def limit_line(tokens: int) -> str:
    """How answers were made."""
    return f"greedy, at most {tokens} tokens for all steps together"


if __name__ == "__main__":
    sys.exit(main())
