"""`python -m tests.attacks.attackers ADDRESS [meek]`: somebody with a real daemon and no manners.

Knows how a stranger comes in at the front door of a swarm, and then sends any bytes it likes. A
meek one gives way to everybody else on the processors: it stands for another machine.
"""

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError
from hivemind.proto import dht_pb2

from protocols import versions
from protocols.adapters.libp2p.address import parse_address
from protocols.adapters.libp2p.control import dial, open_stream
from protocols.adapters.libp2p.pipe import Pipe
from protocols.signing import Identity
from tests.attacks.nodes import make_hello
from tests.attacks.programs import Answer, Command, Handler, Ready, be_another_machine, say, serve

CALL_SECONDS = 3.0
OPEN_SECONDS = 5.0
START_SECONDS = 60.0
"""The meek wait for long where others work."""
REDIAL_SECONDS = 0.5
_NETWORK_ERRORS = (P2PDaemonError, P2PHandlerError, OSError, EOFError, DecodeError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to attack; `key_id` is where in the DHT the attacked record lies."""

    address: str
    key_id: bytes = b""

    @property
    def peer(self) -> str:
        """The victim's peer id."""
        return self.address.rpartition("/p2p/")[2]


class Attacker:
    """A peer with an identity of its own.

    Counts what it sent, what was answered, and the streams that it held at a time.
    """

    def __init__(self, p2p: P2P, identity: Identity, target: Target) -> None:
        self._p2p = p2p
        self.identity = identity
        self._victim = PeerID.from_base58(target.peer)
        self._hello = make_hello(identity)
        self._socket = Path(p2p._daemon_listen_maddr["unix"])
        self._next_dial = 0.0
        self.target = target
        self.sent = 0
        self.answered = 0
        self.held = 0
        self.is_inside = False

    @property
    def peer(self) -> str:
        """Our peer id."""
        return str(self.identity.peer_id)

    @property
    def peer_bytes(self) -> bytes:
        """Our peer id, as the DHT has it."""
        return bytes(self._p2p.peer_id.to_bytes())

    async def enter(self, seconds: float = OPEN_SECONDS) -> None:
        """Connect, and pass the gate as any newcomer may; plain hivemind has none.

        Raises:
            TimeoutError: not let in within `seconds`.
        """
        where = parse_address(self.target.address).where
        async with asyncio.timeout(seconds):
            await dial(self._socket, self._victim, [where])
            try:
                _, pipe = await open_stream(self._socket, self._victim, versions.HELLO)
            except P2PDaemonError:
                return
            with suppress(OSError):  # whoever is turned away attacks from outside
                await pipe.send(self._hello)
                self.is_inside = bool(await pipe.receive(65_536))
            pipe.abort()

    async def call(self, method: str, data: bytes, seconds: float = CALL_SECONDS) -> bytes | None:
        """A unary call with these bytes; None if there was no answer in time, or an error."""
        self.sent += 1
        try:
            async with asyncio.timeout(seconds):
                control = self._p2p._client.control
                answer: bytes = await control.call_unary_handler(self._victim, method, data)
        except P2PHandlerError:
            return None
        except TimeoutError:
            return None
        except _NETWORK_ERRORS:
            await self._return()
            return None
        self.answered += 1
        return answer

    async def live(self, node_id: bytes) -> None:
        """Answer pings from now on, under this node id."""
        answer = dht_pb2.PingResponse(peer=dht_pb2.NodeInfo(node_id=node_id), available=True)

        async def pong(_request: bytes, _peer: PeerID) -> bytes:
            return bytes(answer.SerializeToString())

        await self._p2p._client.control.add_unary_handler("DHTProtocol.rpc_ping", pong)

    async def fall_silent(self) -> None:
        """Take all that others ask of a peer in the DHT, and say nothing."""

        async def mute(_request: bytes, _peer: PeerID) -> bytes:
            await asyncio.get_running_loop().create_future()
            return b""

        async def mute_stream(*_: object) -> None:
            await asyncio.get_running_loop().create_future()

        for method in ("ping", "find", "store"):
            await self._p2p._client.control.add_unary_handler(f"DHTProtocol.rpc_{method}", mute)
        await self._p2p.add_binary_stream_handler(versions.HELLO, mute_stream)

    async def open(self, protocol: str) -> Pipe | None:
        """A stream, if the victim takes one."""
        self.sent += 1
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                _, pipe = await open_stream(self._socket, self._victim, protocol)
        except _NETWORK_ERRORS:
            await self._return()
            return None
        self.answered += 1
        return pipe

    async def pour(self, protocol: str, data: bytes, repeat: int = 1) -> int:
        """Send `data` on a stream of its own until the victim has had enough; bytes taken."""
        pipe = await self.open(protocol)
        if pipe is None:
            return 0
        taken = 0
        with suppress(*_NETWORK_ERRORS):
            async with asyncio.timeout(CALL_SECONDS):
                for _ in range(repeat):
                    await pipe.send(data)
                    taken += len(data)
                while await pipe.receive(65_536):
                    pass
        pipe.abort()
        return taken

    async def _return(self) -> None:
        """Come back after being thrown out, but not all the time."""
        if time.monotonic() >= self._next_dial:
            self._next_dial = time.monotonic() + REDIAL_SECONDS
            with suppress(*_NETWORK_ERRORS):
                await self.enter()


@asynccontextmanager
async def newcomer(target: Target, patience: float = START_SECONDS) -> AsyncIterator[Attacker]:
    """A peer that nobody has seen before, let in within `patience` seconds."""
    identity = Identity.generate()
    with tempfile.NamedTemporaryFile(prefix="attacker-") as key_file:
        key_file.write(identity.to_libp2p())
        key_file.flush()
        p2p = await P2P.create(
            identity_path=key_file.name,
            check_if_identity_free=False,
            nat_port_map=False,
            auto_nat=False,
            startup_timeout=START_SECONDS,
        )
        try:
            attacker = Attacker(p2p, identity, target)
            await attacker.enter(patience)
            yield attacker
        finally:
            await p2p.shutdown()


class Program:
    """Carries out the harness's commands."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._presence = AsyncExitStack()
        self._attacker: Attacker | None = None

    def handlers(self) -> dict[str, Handler]:
        """By name."""
        return {"arrive": self._arrive, "attack": self._attack}

    async def _arrive(self, command: Command) -> Answer:
        """Come in as a peer that nobody has seen before (`found`); `value` is the key's id."""
        target = Target(self._address, bytes.fromhex(command.value))
        arrival = newcomer(target, command.seconds or START_SECONDS)
        self._attacker = await self._presence.enter_async_context(arrival)
        return Answer(self._attacker.peer)

    async def _attack(self, command: Command) -> Answer:
        """Attack for some seconds, once at least, and leave; what was sent."""
        from tests.attacks.attacks import ATTACKS

        assert self._attacker is not None, "arrive first"
        attacker, self._attacker = self._attacker, None
        async with self._presence.pop_all():
            started = time.monotonic()
            await ATTACKS[command.key](attacker, started + command.seconds)
            taken = time.monotonic() - started
        return Answer(attacker.peer, "", attacker.sent, attacker.answered, attacker.held, taken)


def main(address: str, is_meek: bool) -> None:
    """Attack whenever told to."""
    if is_meek:
        be_another_machine()
    logging.disable(logging.CRITICAL)
    say(Ready())
    asyncio.run(serve(Program(address).handlers()))


if __name__ == "__main__":
    main(sys.argv[1], is_meek=len(sys.argv) > 2)
