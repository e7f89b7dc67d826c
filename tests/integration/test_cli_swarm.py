"""`dslm swarm`, `invite` and `key`, without a node and with a scripted one in the same home."""

import asyncio
import getpass
import io
import json
import os
import random
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.cli import app
from node.gateway.access import Access
from node.gateway.admin_token import AdminToken
from node.gateway.config import GatewayConfig
from node.gateway.fake import FixedView, ScriptedAnswers, Speech
from node.gateway.keys import KeyFile
from node.gateway.server import Gateway
from node.paths import Paths, paths_below
from node.process import RunningNode, hold
from node.state import (
    SCHEMA_VERSION,
    MembersState,
    MemberState,
    SwarmReaders,
    SwarmsState,
    SwarmState,
)
from node.swarms import owner_key
from node.swarms.folder import CurrentSwarm, SwarmFolder
from node.swarms.owner_acts import read_documents
from node.swarms.owner_key import OwnerKeyFile
from protocols.adapters.clock import SystemClock
from protocols.ids import PeerId, peer_id_from_public_key
from protocols.membership.book import MemberBook
from protocols.membership.documents import Role
from protocols.signing import Identity

SECRET = "five words of no saying"  # noqa: S105
BOB, CAROL = (Identity(bytes([n] * 32)).peer_id for n in (7, 8))


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_key, "_COST", 2**4)
    monkeypatch.setattr(sys, "stdin", None)


@dataclass(frozen=True, slots=True)
class Home:
    """A home folder and `dslm` in it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def paths(self) -> Paths:
        return paths_below(self.folder)

    @property
    def passphrase(self) -> Path:
        file = self.folder / "passphrase"
        file.write_text(SECRET + "\n")
        file.chmod(0o600)
        return file

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = app.main([*arguments, "--home", str(self.folder)])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def create(self, name: str = "lab", kind: str = "--private") -> dict[str, str]:
        code, out, err = self(
            *("swarm", "create", name, kind, "--json"), "--passphrase-file", str(self.passphrase)
        )
        assert (code, err) == (0, "")
        made: dict[str, str] = json.loads(out)
        return made

    def owner(self, *arguments: str) -> tuple[int, str, str]:
        return self("swarm", *arguments, "--passphrase-file", str(self.passphrase))

    def folder_of(self, name: str = "lab") -> SwarmFolder:
        return SwarmFolder.load(self.paths.swarms / name)


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    return Home(tmp_path / "home", capsys)


@pytest.fixture(autouse=True)
def make_home(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()


# Without a node ---------------------------------------------------------------------------------


def test_a_private_swarm_is_made_whole(home: Home) -> None:
    made = home.create()
    folder, key = home.folder_of(), OwnerKeyFile(Path(made["owner_key"]))
    assert key.path == home.paths.owners / "lab.key"
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert key.unlock(SECRET).peer_id == made["owner"] == folder.charter.owner
    assert made["swarm"] == folder.charter.swarm
    assert made["peer"] == folder.identity.peer_id != made["owner"]
    book = MemberBook(folder.charter)
    membership = book.believe(folder.identity.peer_id, folder.credential(), SystemClock().now())
    assert membership.roles == frozenset(Role)
    assert book.is_issuer(folder.identity.peer_id, SystemClock().now())
    assert CurrentSwarm(home.paths.swarms).name() == "lab"


def test_a_public_swarm_has_an_owner_and_no_papers(home: Home) -> None:
    made = home.create("commons", "--public")
    folder = home.folder_of("commons")
    assert (folder.credential(), folder.delegations()) == (b"", ())
    assert not folder.charter.is_private
    assert folder.charter.owner == made["owner"]
    assert OwnerKeyFile(Path(made["owner_key"])).unlock(SECRET).peer_id == made["owner"]


def test_what_a_person_reads_after_making_a_swarm(home: Home) -> None:
    code, out, err = home(
        "swarm", "create", "lab", "--private", "--passphrase-file", str(home.passphrase)
    )
    assert (code, err) == (0, "")
    assert str(home.paths.owners / "lab.key") in out
    assert "another medium" in out
    assert "dslm invite lab" in out
    assert SECRET not in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["lab"], 2, "--private or --public"),
        (["lab", "--private", "--public"], 2, "--private or --public"),
        (["lab", "--private"], 2, "--passphrase-file FILE"),
        (["Lab!", "--private"], 1, "name of a swarm"),
        (["../lab", "--private"], 1, "no /"),
        (["..", "--private"], 1, "name of a swarm"),
        (["x" * 65, "--private"], 1, "64"),
        (["lab", "--private", "--passphrase-file", "nowhere"], 1, "nowhere"),
    ],
)
def test_a_swarm_that_cannot_be_made_leaves_nothing(
    home: Home, arguments: list[str], code: int, said: str
) -> None:
    ended, out, err = home("swarm", "create", *arguments)
    assert (ended, out) == (code, "")
    assert said in err
    assert not home.paths.data.exists()


def test_a_weak_passphrase_and_a_file_that_others_read(home: Home) -> None:
    file = home.passphrase
    file.write_text("short\n")
    arguments = ["swarm", "create", "lab", "--private", "--passphrase-file", str(file)]
    code, _, err = home(*arguments)
    assert (code, "too weak" in err) == (1, True)
    file.write_text(SECRET)
    file.chmod(0o644)
    code, _, err = home(*arguments)
    assert (code, "chmod 600" in err) == (1, True)
    assert not home.paths.data.exists()


def test_the_same_name_twice_is_refused(home: Home) -> None:
    home.create()
    before = (home.paths.owners / "lab.key").read_bytes()
    code, _, err = home.owner("create", "lab", "--private")
    assert (code, "already" in err) == (1, True)
    assert home("swarm", "leave", "lab", "--yes")[0] == 0
    code, _, err = home.owner("create", "lab", "--private")
    assert (code, "owner's key of an older swarm" in err) == (1, True)
    assert (home.paths.owners / "lab.key").read_bytes() == before


def test_typed_passphrases(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed: list[str] = []
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", lambda _: typed.pop(0))
    typed[:] = [SECRET, SECRET + "x"]
    code, _, err = home("swarm", "create", "lab", "--private")
    assert (code, "not the same" in err) == (1, True)
    typed[:] = ["short"]
    assert home("swarm", "create", "lab", "--private")[0] == 1
    assert not home.paths.data.exists()
    typed[:] = [SECRET, SECRET]
    assert home("swarm", "create", "lab", "--private")[0] == 0
    typed[:] = ["wrong passphrase"]
    code, _, err = home("swarm", "rotate")
    assert (code, "not the passphrase" in err) == (1, True)
    typed[:] = [SECRET]
    assert home("swarm", "rotate")[0] == 0
    assert typed == []


def test_swarms_are_listed_used_and_left(home: Home) -> None:
    assert home("swarm", "ls")[:2] == (0, "")
    home.create("lab")
    home.create("commons", "--public")
    code, out, err = home("swarm", "ls", "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)["swarms"]
    assert [(one["name"], one["is_current"]) for one in rows] == [("commons", True), ("lab", False)]
    assert home("swarm", "use", "lab")[0] == 0
    code, out, _ = home("swarm", "ls")
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["*", "lab", "private"],
        ["commons", "public", "-"],
    ]
    assert home("swarm", "use", "nope")[0] == 4
    code, out, _ = home("swarm", "info")
    assert "private), current" in out
    assert home("swarm", "leave", "lab")[0] == 2
    assert home("swarm", "leave", "lab", "--yes")[0] == 0
    assert home("swarm", "leave", "lab", "--yes")[0] == 4
    assert json.loads(home("swarm", "info", "--json")[1])["swarm"]["name"] == "commons"


def test_a_damaged_swarm_is_named_and_can_be_left(home: Home) -> None:
    home.create()
    (home.paths.swarms / "lab" / "charter.json").write_text("{}")
    code, _, err = home("swarm", "ls")
    assert (code, "charter.json is damaged" in err, "dslm swarm leave lab" in err) == (
        1,
        True,
        True,
    )
    assert home("swarm", "leave", "lab", "--yes")[0] == 0
    assert home("swarm", "ls")[0] == 0


def test_an_owner_acts_while_the_node_is_down(home: Home) -> None:
    home.create()
    code, out, err = home.owner("revoke", BOB)
    assert code == 0
    assert BOB in out
    assert "when it starts" in err
    code, out, _ = home.owner("appoint", CAROL, "--json")
    assert (code, json.loads(out)["spread"]) == (0, False)
    folder = home.folder_of()
    documents = (folder.revocations(), *folder.delegations())
    in_force = read_documents(folder.charter, documents)
    assert in_force.revocations.peers == (BOB,)
    me = folder.identity.peer_id
    assert set(in_force.issuers(SystemClock().now())) == {me, CAROL}
    assert home.owner("revoke", BOB[:20])[0] == 1
    assert home.owner("revoke", me)[0] == 1
    code, out, _ = home.owner("rotate")
    assert (code, "2 issuers go on" in out) == (0, True)
    folder = home.folder_of()
    assert read_documents(folder.charter, (folder.revocations(),)).revocations.epoch == 2
    code, out, _ = home("swarm", "members", "-v")
    assert {line.split()[1]: line.split()[2] for line in out.splitlines()[1:]} == {
        me: "self",
        CAROL: "unseen",
        BOB: "revoked",
    }


def test_a_key_that_was_moved_and_one_of_another_swarm(home: Home, tmp_path: Path) -> None:
    made = home.create()
    home.create("attic")
    moved = tmp_path / "stick.key"
    Path(made["owner_key"]).rename(moved)
    code, _, err = home.owner("revoke", BOB, "--swarm", "lab")
    assert (code, "--owner-key FILE" in err) == (1, True)
    assert home.owner("revoke", BOB, "--swarm", "lab", "--owner-key", str(moved))[0] == 0
    code, _, err = home.owner("revoke", CAROL, "--swarm", "attic", "--owner-key", str(moved))
    assert (code, "another swarm, lab" in err) == (1, True)


def test_peers_that_nobody_knows(home: Home) -> None:
    home.create()
    code, _, err = home.owner("revoke", "bob")
    assert (code, "whole peer id" in err) == (4, True)


def test_an_invite_needs_the_node(home: Home) -> None:
    home.create()
    code, out, err = home("invite", "lab", "--url", "http://127.0.0.1:9")
    assert (code, out) == (3, "")
    assert "dslm up" in err


def test_doctor_reads_the_folders(home: Home) -> None:
    home.create()
    code, out, _ = home("doctor")
    assert "ok   swarm lab: as 12D3Koo" in out
    assert "owner's key" in out
    (home.paths.swarms / "lab" / "credential").write_bytes(b"x")
    code, out, _ = home("doctor")
    assert code == 1
    assert "FAIL swarm lab" in out


# Keys -------------------------------------------------------------------------------------------


def test_api_keys(home: Home) -> None:
    code, out, err = home("key", "create", "laptop")
    assert (code, "this once" in err) == (0, True)
    keys = KeyFile(home.paths.api_keys_file)
    assert keys.check(out.strip()) == "laptop"
    assert stat.S_IMODE(home.paths.api_keys_file.stat().st_mode) == 0o600
    assert out.strip() not in home.paths.api_keys_file.read_text()
    assert home("key", "create", "laptop")[0] == 1
    code, listed, _ = home("key", "ls")
    assert (code, "laptop" in listed, out.strip() in listed) == (0, True, False)
    assert [one["name"] for one in json.loads(home("key", "ls", "--json")[1])["keys"]] == ["laptop"]
    assert home("key", "remove", "laptop")[0] == 0
    assert keys.check(out.strip()) is None
    assert home("key", "remove", "laptop")[0] == 1
    assert json.loads(home("key", "create", "ci", "--json")[1])["key"].startswith("dslm-")


# With a node ------------------------------------------------------------------------------------


class Node(FixedView):
    """A node that is in `lab`, keeps what is published, and knows two members."""

    home: Home

    async def swarms(self) -> SwarmsState:
        folders = SwarmFolder.all_in(self.home.paths.swarms)
        names = {one.name: one for one in self.swarm_readers}
        rows = tuple(_row(folder, names[folder.name]) for folder in folders if folder.name in names)
        return SwarmsState(SCHEMA_VERSION, rows)

    async def members(self, name: str) -> MembersState:
        rows = (
            (self.home.folder_of(name).identity.peer_id, "here"),
            (BOB, "bob"),
            (CAROL, "carol"),
        )
        return MembersState(
            SCHEMA_VERSION,
            name,
            tuple(MemberState(one, said, False, "ok", ("node",), "", 1.0) for one, said in rows),
        )

    async def documents(self, name: str) -> tuple[bytes, ...]:
        return self.published.get(name, self.home.folder_of(name).delegations())


def _row(folder: SwarmFolder, readers: SwarmReaders) -> SwarmState:
    return SwarmState(
        name=folder.name,
        swarm=folder.charter.swarm,
        kind=readers.kind,
        is_current=readers.is_current,
        peer=folder.identity.peer_id,
        roles=("node",),
        certificate_expires_in=3_600.0,
        delegation_expires_in=86_400.0,
        epoch=0,
        issuers=(folder.identity.peer_id,),
        revoked=0,
        members=3,
        addresses=(),
        reachable=(),
        network="up",
        owner_key="",
        readers=readers.readers,
    )


@contextmanager
def running(home: Home) -> Iterator[Node]:
    """A gateway in a thread, as the running node of `home`."""
    view = Node()
    view.home = home
    access = Access(admin=AdminToken.create(home.paths.admin_token_file))
    ready, urls = threading.Event(), []
    stops: list[Callable[[], object]] = []

    async def serve() -> None:
        answers = ScriptedAnswers(Speech(PeerId("P"), ["x"]))
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
    try:
        with hold(home.paths.pid_file, RunningNode(os.getpid(), urls[0], "0.1.0")):
            yield view
    finally:
        stops[0]()
        thread.join(10)


def test_a_running_node_takes_part_in_a_new_swarm_at_once(home: Home) -> None:
    with running(home) as node:
        home.create()
        assert [(one.name, one.is_current) for one in node.swarm_readers] == [
            ("public", False),
            ("lab", True),
        ]
        code, out, _ = home("swarm", "ls")
        assert (code, out.splitlines()[1].split()[:3]) == (0, ["*", "lab", "private"])
        code, out, _ = home("swarm", "info")
        assert "Its members." in out
        code, out, _ = home("status")
        assert "lab (private); also in public" in "\n".join(out.split("  "))
        assert home("swarm", "use", "public")[0] == 0
        assert node.swarm_readers[0].is_current
        assert home("swarm", "use", "nope")[0] == 4
        assert home("swarm", "leave", "lab", "--yes")[0] == 0
        assert [one.name for one in node.swarm_readers] == ["public"]


def test_an_invite_is_printed_for_people_and_for_scripts(home: Home) -> None:
    with running(home):
        home.create()
        code, out, err = home("invite", "lab", "--role", "user", "--uses", "3", "--for", "2h")
        assert (code, out) == (0, "dslm join dslm:trial\n")
        assert "3 times" in err
        assert "user" in err
        assert home("invite", "-q")[:2] == (0, "dslm:trial\n")
        found = json.loads(home("invite", "--role", "node", "--role", "trainer", "--json")[1])
        assert found["roles"] == ["node", "trainer"]
        code, _, err = home("invite", "lab", "--withdraw", "dslm:trial")
        assert (code, "nobody can join lab by this invite" in err) == (0, True)
        assert home("invite", "lab", "--withdraw", "nope")[0] == 1
        assert home("invite", "--withdraw", "dslm:nonsense")[0] == 1
        assert home("invite", "--role", "issuer")[0] == 2
        assert home("invite", "--uses", "0")[0] == 2
        assert home("invite", "--for", "0s")[0] == 2
        assert home("invite", "--for", "soon")[0] == 1
        assert home("invite", "nope")[0] == 4


def test_a_revocation_is_signed_here_and_handed_to_the_node(home: Home) -> None:
    with running(home) as node:
        home.create()
        before = home.folder_of().revocations()
        code, out, err = home.owner("revoke", "bob")
        assert (code, out, err) == (0, f"revoked {BOB}\n", "")
        in_force = read_documents(home.folder_of().charter, node.published["lab"])
        assert (in_force.revocations.epoch, in_force.revocations.peers) == (1, (BOB,))
        code, out, _ = home.owner("revoke", CAROL[-8:], "--json")
        assert json.loads(out) == {
            "schema_version": 1,
            "swarm": "lab",
            "spread": True,
            "revoked": CAROL,
        }
        in_force = read_documents(home.folder_of().charter, node.published["lab"])
        assert (in_force.revocations.epoch, in_force.revocations.peers) == (2, (BOB, CAROL))
        assert home.owner("revoke", "12D3")[0] == 4
        assert home.folder_of().revocations() == before


def test_a_rotation_and_an_appointment_through_the_node(home: Home) -> None:
    with running(home) as node:
        home.create()
        code, out, _ = home.owner("rotate")
        assert (code, out) == (0, "rotated lab; 1 issuers go on\n")
        in_force = read_documents(home.folder_of().charter, node.published["lab"])
        assert in_force.revocations.floor > 0
        assert len(in_force.delegations) == 1
        assert home.owner("appoint", "carol")[0] == 0
        in_force = read_documents(home.folder_of().charter, node.published["lab"])
        assert [one.issuer for one in in_force.delegations] == [CAROL]


def test_a_swarm_that_belongs_to_nobody_has_nobody_to_decide(home: Home) -> None:
    from protocols.membership.charter import open_charter

    SwarmFolder.create(home.paths.swarms, open_charter("public"), Identity(b"x" * 32))
    with running(home):
        code, _, err = home.owner("revoke", BOB)
        assert (code, "belongs to nobody" in err) == (1, True)


def test_doctor_asks_the_node(home: Home) -> None:
    with running(home):
        home.create()
        _, out, _ = home("doctor")
        assert "ok   swarm lab: certificate for 1 h" in out
        assert "FAIL swarm lab reachability: nobody has reached this node" in out


def test_members_are_found_by_either_end_of_their_id() -> None:
    from node.cli.swarm_owner import find_member
    from protocols.errors import UnknownPeer

    rows = [
        MemberState(one, name, False, "ok", (), "", None)
        for one, name in ((BOB, "bob"), (CAROL, "bob"), ("12D3KooWx", CAROL))
    ]
    assert find_member(BOB[-10:], rows) == BOB
    stranger = peer_id_from_public_key(bytes(32))
    assert find_member(stranger, rows) == stranger
    with pytest.raises(UnknownPeer, match="fits 2"):
        find_member("bob", rows)
    with pytest.raises(UnknownPeer, match="fits 2"):
        find_member(CAROL, rows)
