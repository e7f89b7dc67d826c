"""`python -m tests.attacks.attackers ADDRESS`: somebody with a real daemon and no manners.

Knows how a stranger comes in at the front door of a swarm, and then sends any bytes it likes. It
gives way to everybody else on the processors: it stands for another machine.
"""

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError

from protocols.adapters.libp2p.address import parse_address
from protocols.adapters.libp2p.control import dial, open_stream
from protocols.adapters.libp2p.pipe import Pipe
from protocols.signing import Identity
from tests.attacks.programs import Answer, Command, Handler, Ready, be_another_machine, say, serve

CALL_SECONDS = 10.0
OPEN_SECONDS = 5.0
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
    """A peer with an identity of its own. Counts what it sent and what was answered."""

    def __init__(self, p2p: P2P, identity: Identity, target: Target) -> None:
        self._p2p = p2p
        self.identity = identity
        self._victim = PeerID.from_base58(target.peer)
        self._socket = Path(p2p._daemon_listen_maddr["unix"])
        self._next_dial = 0.0
        self.target = target
        self.sent = 0
        self.answered = 0

    @property
    def peer(self) -> str:
        """Our peer id."""
        return str(self.identity.peer_id)

    @property
    def peer_bytes(self) -> bytes:
        """Our peer id, as the DHT has it."""
        return bytes(self._p2p.peer_id.to_bytes())

    async def enter(self) -> None:
        """Connect, and pass the gate as any newcomer may."""
        where = parse_address(self.target.address).where
        async with asyncio.timeout(OPEN_SECONDS):
            await dial(self._socket, self._victim, [where])

    async def call(self, method: str, data: bytes) -> bytes | None:
        """A unary call with these bytes; None if there was no answer but an error, or none."""
        self.sent += 1
        try:
            async with asyncio.timeout(CALL_SECONDS):
                control = self._p2p._client.control
                answer: bytes = await control.call_unary_handler(self._victim, method, data)
        except P2PHandlerError:
            return None
        except _NETWORK_ERRORS:
            await self._return()
            return None
        self.answered += 1
        return answer

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
async def newcomer(target: Target) -> AsyncIterator[Attacker]:
    """A peer that nobody has seen before, let in."""
    identity = Identity.generate()
    with tempfile.NamedTemporaryFile(prefix="attacker-") as key_file:
        Path(key_file.name).write_bytes(identity.to_libp2p())
        p2p = await P2P.create(
            identity_path=key_file.name,
            check_if_identity_free=False,
            nat_port_map=False,
            auto_nat=False,
        )
        try:
            attacker = Attacker(p2p, identity, target)
            await attacker.enter()
            yield attacker
        finally:
            await p2p.shutdown()


class Program:
    """Carries out the harness's commands."""

    def __init__(self, address: str) -> None:
        self._address = address

    def handlers(self) -> dict[str, Handler]:
        """By name."""
        return {"attack": self._attack}

    async def _attack(self, command: Command) -> Answer:
        """Attack for some seconds, once at least; `count` messages, the first peer as `found`."""
        from tests.attacks.attacks import ATTACKS

        target = Target(self._address, bytes.fromhex(command.value))
        started = time.monotonic()
        async with newcomer(target) as attacker:
            until = time.monotonic() + command.seconds
            await ATTACKS[command.key](attacker, until)
            return Answer(attacker.peer, "", attacker.sent, time.monotonic() - started)


def main(address: str) -> None:
    """Attack whenever told to."""
    be_another_machine()
    logging.disable(logging.CRITICAL)
    say(Ready())
    asyncio.run(serve(Program(address).handlers()))


if __name__ == "__main__":
    main(sys.argv[1])
