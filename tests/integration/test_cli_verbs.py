"""The verbs against a gateway with a scripted node behind it, over a real socket."""

import asyncio
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.answer import (
    AnswerEvent,
    AnswerRequest,
    Delta,
    Planning,
    Quality,
    Route,
    Routed,
)
from node.cli import app
from node.cli.verb import Invocation
from node.gateway.access import Access
from node.gateway.admin_token import AdminToken
from node.gateway.config import GatewayConfig
from node.gateway.debate import Debate, Turn
from node.gateway.fake import FixedView, ScriptedAnswers, Speech, peer_state, specialist_state
from node.gateway.server import Gateway
from node.paths import paths_below
from node.process import RunningNode, hold
from node.state import Check, JoinReport, PingReport, SwarmReaders
from protocols.adapters.clock import SystemClock
from protocols.errors import NoCapacity, TooLong, UnknownModel, UnknownPeer
from protocols.ids import PeerId, SpecialistId, peer_id_from_public_key
from protocols.membership.charter import open_charter
from protocols.membership.invite import Invite, format_invite

PEER = peer_id_from_public_key(bytes(32))


class View(FixedView):
    """A view in which one peer can be pinged, and a join can end as a test wants."""

    scripted: tuple[Check | JoinReport, ...] = ()

    async def join(self, target: str) -> AsyncGenerator[Check | JoinReport, None]:
        if not self.scripted:
            async for one in super().join(target):
                yield one
        for scripted in self.scripted:
            yield scripted

    async def ping(self, peer: str, count: int) -> PingReport:
        if peer != "bob":
            raise UnknownPeer(f"No peer {peer!r} is known.")
        return await super().ping(peer, count)


@dataclass(frozen=True, slots=True)
class Served:
    """The running gateway and what is behind it."""

    url: str
    answers: ScriptedAnswers
    view: View


async def _script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
    match request.model:
        case "auto" | "base":
            async for event in Speech(PEER, ["Hel", "lo é", "!"])(request):
                yield event
        case "several":
            debate = Debate([Turn("medicine", PEER, ["70", " mg"]), Turn("law", PEER, ["Yes."])])
            async for event in debate(request):
                yield event
        case "long":
            raise TooLong(2048, 5000)
        case "full":
            raise NoCapacity("No reachable peer can answer now.")
        case "breaks":
            yield Routed(SpecialistId("base"), PEER, "it is near")
            yield Delta(PEER, 0, (1,), "Hel")
            raise NoCapacity("No replica is left.")
        case "slow":
            yield Routed(SpecialistId("base"), PEER, "it is near")
            yield Delta(PEER, 0, (1,), "Hel")
            await asyncio.sleep(60)
        case other:
            raise UnknownModel(other, ("base",))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A gateway in a thread of its own, as the running node of the home `tmp_path`."""
    paths = paths_below(tmp_path)
    access = Access(admin=AdminToken.create(paths.admin_token_file))
    answers = ScriptedAnswers(_script)
    view = View(
        known_peers=(peer_state(PEER, "alder", is_self=True), peer_state(PeerId("P2"), "bob")),
        known_specialists=(specialist_state("base", PEER),),
    )
    ready = threading.Event()
    urls: list[str] = []
    stops: list[Callable[[], object]] = []

    async def serve() -> None:
        gateway = Gateway(
            answers,
            view,
            GatewayConfig(port=0, drain=0.1),
            clock=SystemClock(),
            rng=random.Random(1),
            access=access,
        )
        await gateway.start()
        urls.append(gateway.url)
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(ended.set))
        ready.set()
        await ended.wait()
        await gateway.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    with hold(paths.pid_file, RunningNode(os.getpid(), urls[0], "0.1.0")):
        yield Served(urls[0], answers, view)
    stops[0]()
    thread.join(10)


@dataclass(frozen=True, slots=True)
class Command:
    """Runs `dslm` in this process."""

    capsys: pytest.CaptureFixture[str]
    url: str

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = app.main([*arguments, "--url", self.url])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def command(
    served: Served,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    monkeypatch.setenv("DSLM_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", None)
    return Command(capsys, served.url)


def test_run_prints_the_answer_alone(command: Command, served: Served) -> None:
    assert command("run", "auto", "hi") == (0, "Hello é!\n", "")
    assert command("run", "base", "hi", "--no-stream") == (0, "Hello é!\n", "")
    assert [request.model for request in served.answers.asked] == ["auto", "base"]


def test_run_passes_its_flags_on(command: Command, served: Served) -> None:
    flags = ["-s", "Be brief.", "--max-tokens", "2", "--temperature", "0", "--seed", "7"]
    code, out, err = command("run", "auto", "hi", *flags)
    assert (code, out) == (0, "Hello é\n")
    assert "--max-tokens" in err
    asked = served.answers.asked[0]
    assert (asked.max_tokens, asked.sampling.temperature, asked.sampling.seed) == (2, 0.0, 7)
    assert "Be brief." in str(asked.prompt)


def test_run_tells_who_answered_when_asked_to(command: Command) -> None:
    code, out, err = command("run", "auto", "hi", "-v")
    assert (code, out) == (0, "Hello é!\n")
    assert "it is the only one" in err
    assert f"answered by {PEER} | specialist smollm2-135m | first token after 0.12 s" in err


def test_run_explains_a_plan_and_what_became_of_it(command: Command, served: Served) -> None:
    flags = ["--explain", "--plan", "auto", "--quality", "best"]
    code, out, err = command("run", "several", "hi", *flags)
    assert (code, out) == (
        0,
        "-- medicine (step 1 of 2) --\n\n70 mg\n\n-- law (step 2 of 2) --\n\nYes.\n",
    )
    assert "plan: chain. several parts (margin 0.100)" in err
    assert "scores: medicine 0.500, law 0.400" in err
    assert "step 2: law, 1 tokens in 1.00 s" in err
    assert "at work: 2 of 5 specialists, 140.0 M of 160.0 M parameters" in err
    (asked,) = served.answers.asked
    assert (asked.planning, asked.quality) == (Planning.AUTO, Quality.BEST)
    code, out, err = command("run", "several", "hi", "--json", "--explain", "--plan", "single")
    steps = json.loads(out)["dslm"]["steps"]
    assert [step["text"] for step in steps] == ["70 mg", "Yes."]
    assert not err
    assert served.answers.asked[1].planning is Planning.SINGLE


def test_run_as_json(command: Command) -> None:
    code, out, err = command("run", "auto", "hi", "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert result["schema_version"] == 1
    assert result["answer"] == "Hello é!"
    assert result["usage"]["completion_tokens"] == 3
    assert result["dslm"]["peers"] == [{"peer": PEER, "tokens": 3}]


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("nope", 4, "Did you mean: base?"),
        ("long", 1, "maximum context length is 2048 tokens"),
        ("full", 5, "No reachable peer"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--no-stream"], ["--json"]])
def test_run_when_it_cannot(
    command: Command, model: str, code: int, said: str, flags: list[str]
) -> None:
    ended, out, err = command("run", model, "hi", *flags)
    assert (ended, out) == (code, "")
    assert err.startswith("error: ")
    assert said in err


def test_run_that_breaks_in_the_middle(command: Command) -> None:
    code, out, err = command("run", "breaks", "hi")
    assert (code, out) == (5, "Hel")
    assert "No replica is left." in err


def test_run_without_anything_to_ask(command: Command) -> None:
    code, out, err = command("run", "auto")
    assert (code, out) == (2, "")
    assert "nothing to ask" in err


def test_ctrl_c_ends_the_answer_here_and_there(served: Served, tmp_path: Path) -> None:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "node", "run", "slow", "hi", "--url", served.url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"DSLM_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert process.stdout is not None
    assert process.stdout.read(3) == b"Hel", process.communicate(timeout=10)
    assert served.answers.open == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    for _ in range(200):
        if served.answers.open == 0:
            return
        threading.Event().wait(0.02)
    pytest.fail("the node went on with an answer that nobody reads")


def test_a_prompt_from_a_pipe(served: Served, tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "node", "run", "auto", "Sum up:", "--url", served.url],
        input="a long text",
        capture_output=True,
        text=True,
        check=True,
        env={"DSLM_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == "Hello é!\n"
    assert "Sum up:\\na long text" in repr(served.answers.asked[0].prompt)


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (["status"], "dslm 0.1.0"),
        (["ps"], ""),
        (["peers"], "alder"),
        (["ls"], "base"),
        (["stats"], "SPECIALIST"),
        (["route", "why?", "--plan", "single"], "first: "),
        (["ping", "bob"], "median 1.00"),
        (["swarm", "ls"], "public"),
        (["swarm", "info"], "public (open), current"),
        (["swarm", "members"], "alder"),
        (["invite", "--for", "2d"], "dslm join dslm:trial"),
    ],
)
def test_read_verbs_for_people_and_for_programs(
    command: Command, verb: list[str], said: str
) -> None:
    code, out, _ = command(*verb)
    assert code == 0
    assert said in out
    assert "\x1b" not in out
    code, out, err = command(*verb, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["schema_version"] == 1


def test_ping_of_a_stranger(command: Command) -> None:
    code, out, err = command("ping", "nobody")
    assert (code, out) == (4, "")
    assert "'nobody'" in err


def test_adapters_are_added_listed_and_removed(
    command: Command, served: Served, tmp_path: Path
) -> None:
    assert command("adapter", "ls") == (
        *(0, ""),
        "no adapters here; `dslm adapter add FOLDER` loads one\n",
    )
    folder = ("adapter", "add", str(tmp_path), "--id", "lab/tax", "--base", "smollm2")
    code, out, err = command(*folder, "--domain", "law", "--domain", "law/tax")
    assert (code, out, err) == (0, "", "hosting lab/tax on smollm2: dslm run lab/tax PROMPT\n")
    (added,) = served.view.hosted_adapters
    assert (added.base, added.domains) == ("smollm2", ("law", "law/tax"))
    code, out, _ = command("adapter", "ls")
    assert (code, out.split()[:5]) == (0, ["SPECIALIST", "BASE", "KIND", "SIZE", "DOMAINS"])
    row = out.splitlines()[1].split()
    assert row == ["lab/tax", "smollm2", "ordinary", "10", "B", "law,", "law/tax"]
    code, out, err = command("adapter", "ls", "--json")
    assert (code, err, json.loads(out)["adapters"][0]["id"]) == (0, "", "lab/tax")
    assert command("adapter", "remove", "lab/tax") == (0, "", "removed lab/tax\n")
    assert served.view.hosted_adapters == []
    code, _, err = command("adapter", "remove", "nobody")
    assert (code, "hosts no 'nobody'" in err) == (1, True)
    code, _, err = command("adapter", "add", str(tmp_path / "none"))
    assert (code, "is no folder, and no specialist that ships" in err) == (2, True)


def test_join(command: Command, served: Served) -> None:
    address = f"/ip4/192.0.2.7/tcp/7779/p2p/{PEER}"
    code, _, err = command("join", address)
    assert (code, served.view.joined) == (0, [address])
    assert err.splitlines() == ["ok   invite: good", "ok   dial: good", f"joined through {PEER}"]
    assert command("join", "somewhere")[0] == 2
    assert command("join", "dslm:damaged")[0] == 2


def test_join_as_json_and_a_join_that_breaks_off(command: Command, served: Served) -> None:
    address = f"/ip4/192.0.2.7/tcp/7779/p2p/{PEER}"
    code, out, err = command("join", address, "--json")
    assert (code, err, json.loads(out)["joined"]) == (0, "", True)
    served.view.join_breaks = NoCapacity("nobody is left")
    code, _, err = command("join", address)
    assert code == 5
    assert "error: nobody is left" in err


def test_a_join_that_is_refused_says_what_to_do(command: Command, served: Served) -> None:
    checks = (Check("dial", True, "reached"), Check("membership", False, "used up", "ask again"))
    served.view.scripted = (*checks, JoinReport(1, False, "", checks))
    code, out, err = command("join", f"/ip4/192.0.2.7/tcp/7779/p2p/{PEER}")
    assert (code, out) == (6, "")
    assert err.splitlines() == [
        "ok   dial: reached",
        "FAIL membership: used up",
        "     ask again",
        "error: not joined",
    ]


def test_an_invite_from_a_pipe_is_the_same(
    command: Command, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = format_invite(Invite(open_charter("commons"), (f"/ip4/192.0.2.7/tcp/1/p2p/{PEER}",)))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"dslm join {text[:40]}\n{text[40:]}\n"))
    assert command("join", "-")[0] == 0
    assert served.view.joined == [text]


def test_somebody_else_on_the_machine_is_not_the_owner(
    served: Served, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Another home has no token: prompts may be sent, verbs are the owner's."""
    arguments = ["--url", served.url, "--home", str(tmp_path / "other")]
    assert app.main(["ls", *arguments]) == 0
    assert app.main(["swarm", "ls", *arguments]) == 6
    assert app.main(["join", f"/ip4/192.0.2.7/tcp/7779/p2p/{PEER}", *arguments]) == 6
    assert "owner" in capsys.readouterr().err
    assert served.view.joined == []


def test_the_token_goes_to_the_own_node_only(tmp_path: Path, served: Served) -> None:
    """A program at another address must not learn it."""
    own = Invocation(home=tmp_path).client()
    named = Invocation(home=tmp_path, url=served.url + "/").client()
    foreign = Invocation(home=tmp_path, url="http://127.0.0.1:9").client()
    assert own.url == named.url == served.url
    assert "Authorization" in own._headers
    assert own._headers == named._headers
    assert foreign._headers == {}


def test_the_swarm_and_the_route_are_passed_on(command: Command, served: Served) -> None:
    served.view.swarm_readers += (SwarmReaders("lab", "private", False, "Members of lab."),)
    assert command("run", "auto", "hi", "--swarm", "lab", "--route", "trusted")[0] == 0
    assert command("run", "auto", "hi")[0] == 0
    asked = served.answers.asked
    assert [request.swarm for request in asked] == ["lab", "public"]
    assert [request.route for request in asked] == [Route.TRUSTED, Route.ANY]
    for verb in ("peers", "ls", "status"):
        served.view.asked_swarms.clear()
        assert command(verb, "--swarm", "lab")[0] == 0
        assert set(served.view.asked_swarms) == {"lab"}
        code, out, err = command(verb, "--swarm", "nope&x=/")
        assert (code, out) == (4, "")
        assert "nope&x=/" in err


def test_chat_says_first_who_can_read_it(
    command: Command, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.view.swarm_readers += (SwarmReaders("lab", "private", False, "Members of lab."),)
    said = {
        (): "swarm public (open), route any: Any peer that serves your prompt can read it.",
        ("--route", "local"): "prompts stay on this node",
        ("--route", "trusted"): "named in its setting router.trusted",
        ("--swarm", "lab"): "swarm lab (private), route any: Members of lab.",
        ("--swarm", "lab", "--route", "trusted"): "Members of lab.",
    }
    for flags, sentence in said.items():
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        code, out, err = command("chat", *flags)
        assert (code, out) == (0, "")
        assert sentence in err
    assert served.answers.asked == []


def test_chat_over_a_pipe(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('hello\n"""two\nlines"""\n/bye\nmore\n'))
    code, out, _ = command("chat")
    assert (code, out) == (0, "Hello é!\nHello é!\n")


def test_chat_with_an_unknown_model(command: Command) -> None:
    code, _, err = command("chat", "basis")
    assert code == 4
    assert "Did you mean: base?" in err


@pytest.mark.parametrize(
    "verb", ["status", "ps", "peers", "ls", "run auto hi", "ping x", "chat", "adapter ls"]
)
def test_without_a_node(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setenv("DSLM_HOME", str(tmp_path))
    assert app.main([*verb.split(), "--url", "http://127.0.0.1:9"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: no node answers at http://127.0.0.1:9")
    assert "dslm up" in captured.err


@pytest.mark.parametrize("url", ["https://x", "http://", "ftp://127.0.0.1", "http://h:port"])
def test_a_url_that_is_none(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert app.main(["status", "--url", url]) == 1
    assert "error: " in capsys.readouterr().err


def test_something_else_at_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    import http.server

    class Stranger(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            assert arguments, format

    server = http.server.HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    assert app.main(["status", "--url", f"http://127.0.0.1:{server.server_port}"]) == 1
    thread.join()
    server.server_close()
    assert "no node of dslm" in capsys.readouterr().err


def test_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nonsense"], ["run"], ["status", "--nonsense"], ["logs", "-n", "x"], []):
        assert app.main(arguments) == 2
    assert app.main(["--help"]) == 0
    capsys.readouterr()
