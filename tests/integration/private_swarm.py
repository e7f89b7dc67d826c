"""The life of a private swarm of five daemons, told as a transcript of commands.

Everything is done with the `dslm` command, as a person would; the daemons are children of this
process and end with it. The transcript in docs/operate.md was made by running this file.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PASSPHRASE = "correct horse battery staple"  # noqa: S105
MACHINES = ("anna", "ben", "cleo", "dora", "emil")
HOST = "ben"
QUESTION = "Name a colour."
_SHORT = re.compile(r"dslm:[A-Za-z0-9_-]{24}[A-Za-z0-9_-]+")


@dataclass(slots=True)
class PrivateSwarm:
    """Machines are folders below `folder`; each daemon listens on loopback, at any free port."""

    folder: Path
    environment: Mapping[str, str]
    transcript: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    _daemons: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _ports: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> "PrivateSwarm":
        (self.folder / "passphrase").write_text(PASSPHRASE + "\n")
        (self.folder / "passphrase").chmod(0o600)
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def say(self, text: str) -> None:
        """A line between commands."""
        self.transcript.append(f"# {text}")

    def run(self, machine: str, command: str, *, fails: bool = False) -> str:
        """What `dslm command` prints on `machine`, on both streams; it goes into the transcript."""
        arguments = shlex.split(command)
        # The flags of a verb come after it, and it may be two words.
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "node", *arguments, "--home", str(self.folder / machine)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=120,
            check=False,
            cwd=ROOT,
            env=dict(self.environment),
        )
        shown = command.replace(str(self.folder) + "/", "")
        self.transcript += [f"{machine}$ dslm {shown}", done.stdout.rstrip(), ""]
        if (done.returncode != 0) != fails:
            raise AssertionError(f"{machine}: dslm {command}: {done.returncode}\n{done.stdout}")
        return done.stdout

    def ask(self, machine: str, command: str) -> dict[str, object]:
        """The JSON of a read verb; not in the transcript."""
        done = subprocess.run(  # noqa: S603 - our own program
            [
                *(sys.executable, "-m", "node", *shlex.split(command)),
                *("--json", "--home", str(self.folder / machine)),
            ],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
            cwd=ROOT,
            env=dict(self.environment),
        )
        found = json.loads(done.stdout or b"{}")
        assert isinstance(found, dict)
        return found

    def start(self, machine: str) -> None:
        """A daemon, ready to be talked to."""
        home = self.folder / machine
        home.mkdir(exist_ok=True)
        settings = {
            "api.listen": f"127.0.0.1:{self._port(machine)}",
            "node.name": machine,
            "network.listen": "/ip4/127.0.0.1/tcp/0",
            "router.encoder": "off",
            "engine.precision": "fp32",
        }
        command = [sys.executable, "-m", "node", "serve", "--home", str(home)]
        command += ["--with-parent", str(os.getpid())]
        command += ["--model", "smollm2" if machine == HOST else "none"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        log = (self.folder / f"{machine}.log").open("ab")
        with log:
            self._daemons[machine] = subprocess.Popen(  # noqa: S603 - our own program
                command, cwd=ROOT, env=dict(self.environment), stdout=log, stderr=log
            )
        self.wait(f"{machine} is up", 60, lambda: "peer" in self.ask(machine, "status"))

    def kill(self, machine: str, number: signal.Signals) -> None:
        """End a daemon in one of two ways."""
        daemon = self._daemons.pop(machine)
        daemon.send_signal(number)
        daemon.wait(30)

    def kill_p2pd(self, machine: str) -> None:
        """The network daemon of a node dies."""
        parent = self._daemons[machine].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for child in children:
            if "p2pd" in Path(f"/proc/{child}/cmdline").read_text():
                os.kill(int(child), signal.SIGKILL)

    def wait(self, what: str, seconds: float, is_so: Callable[[], bool]) -> float:
        """Until `is_so`; the seconds it took."""
        began = time.monotonic()
        while not is_so():
            took = time.monotonic() - began
            assert took < seconds, f"not within {seconds} s: {what}\n{self.logs()}"
            time.sleep(0.2)
        return time.monotonic() - began

    def knows(self, machine: str, others: int) -> bool:
        """Whether a machine knows that many others."""
        rows = self.ask(machine, "peers").get("peers", [])
        return isinstance(rows, list) and len(rows) > others

    def logs(self) -> str:
        """The end of every daemon's log."""
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text().splitlines()[-8:])
            for path in sorted(self.folder.glob("*.log"))
        )

    def _port(self, machine: str) -> int:
        if machine not in self._ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._ports[machine] = probe.getsockname()[1]
        return self._ports[machine]


def live(swarm: PrivateSwarm) -> None:
    """Everything that the owner of a private swarm should see once."""
    secret = swarm.folder / "passphrase"
    swarm.say("anna makes a swarm; her node is its first member and issuer")
    swarm.start("anna")
    swarm.run("anna", f"swarm create lab --private --passphrase-file {secret}")
    invite = _SHORT.search(swarm.run("anna", "invite lab --uses 3 --for 2h"))
    assert invite is not None
    swarm.say("the others join with the one string")
    for machine in MACHINES[1:4]:
        swarm.start(machine)
        swarm.run(machine, f"join {invite.group()}")
    swarm.start("emil")
    swarm.say("the invite had three uses")
    swarm.run("emil", f"join {invite.group()}", fails=True)
    swarm.say("an invite can be taken back before it is used")
    unused = _SHORT.search(swarm.run("anna", "invite lab"))
    assert unused is not None
    swarm.run("anna", f"invite --withdraw {unused.group()}")
    swarm.run("emil", f"join {unused.group()}", fails=True)
    second = _SHORT.search(swarm.run("anna", "invite lab --role user"))
    assert second is not None
    swarm.run("emil", f"join {second.group()}")
    for machine in MACHINES:
        swarm.wait(f"{machine} knows the others", 45, lambda one=machine: swarm.knows(one, 3))  # type: ignore[misc]
    swarm.run("anna", "swarm members lab")
    swarm.run("emil", f'run smollm2 "{QUESTION}" --max-tokens 12')

    break_and_mend(swarm, secret)


def break_and_mend(swarm: PrivateSwarm, secret: Path) -> None:
    """A member is thrown out, a network daemon dies, the founder's machine is lost."""
    swarm.say("emil is revoked; who may only ask has no name in the swarm, so by a part of his id")
    emil = str(swarm.ask("emil", "status")["peer"])[-8:]
    began = time.monotonic()
    swarm.run("anna", f"swarm revoke {emil} --passphrase-file {secret}")
    swarm.wait("emil is out", 60, lambda: not swarm.ask("emil", "ping ben"))
    swarm.facts["revoked within"] = time.monotonic() - began
    swarm.run("emil", f'run smollm2 "{QUESTION}" --max-tokens 12', fails=True)
    swarm.run("anna", "swarm members lab")

    swarm.say("the network daemon of ben's node is killed; it comes back with the same identity")
    swarm.kill_p2pd("ben")
    began = time.monotonic()
    swarm.wait("ben answers again", 30, lambda: bool(swarm.ask("dora", "ping ben")))
    swarm.facts["network daemon back within"] = time.monotonic() - began
    swarm.run("dora", f'run smollm2 "{QUESTION}" --max-tokens 12')

    swarm.say("anna's machine, the first bootstrap and only issuer, is gone for good")
    swarm.kill("anna", signal.SIGKILL)
    swarm.run("cleo", f'run smollm2 "{QUESTION}" --max-tokens 12')
    swarm.say("cleo restarts her node: it finds the others through the peers that it remembers")
    swarm.kill("cleo", signal.SIGTERM)
    swarm.start("cleo")
    took = swarm.wait("cleo is back", 15, lambda: bool(swarm.ask("cleo", "ping ben")))
    swarm.facts["member back within"] = took
    swarm.run("cleo", f'run smollm2 "{QUESTION}" --max-tokens 12')
    swarm.run("cleo", "swarm info lab")


def main() -> None:
    """Print the transcript."""
    with (
        tempfile.TemporaryDirectory(prefix="dslm-") as folder,
        PrivateSwarm(Path(folder), dict(os.environ)) as swarm,
    ):
        try:
            live(swarm)
        finally:
            sys.stdout.write(_SHORT.sub("dslm:hKdjaGFydGVy...", "\n".join(swarm.transcript)))
            sys.stdout.write(f"\n{swarm.facts}\n{swarm.logs()}\n")


if __name__ == "__main__":
    main()
