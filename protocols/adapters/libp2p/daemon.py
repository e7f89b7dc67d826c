"""One life of the go-libp2p daemon (p2pd): started by us with our flags, attached, watched, ended.

Knows the process and hivemind's attachment to it; must not know what is sent through it. The
daemon cannot outlive us: the kernel kills it when this process dies, however it dies.
"""

import asyncio
import errno
import os
import signal
import socket
from collections import deque
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from uuid import UUID

import hivemind.hivemind_cli
from hivemind.p2p import P2P
from hivemind.p2p.p2p_daemon_bindings.utils import ControlFailure, P2PDaemonError
from hivemind.utils.multiaddr import Multiaddr

from protocols.adapters.libp2p.address import is_dialable, parse_listen
from protocols.adapters.libp2p.control import identify
from protocols.adapters.libp2p.flags import DaemonSettings, command, environment
from protocols.errors import AddressInUse, TransportDown
from protocols.ids import PeerId

TERMINATE_SECONDS = 1.0
CONTROL_SECONDS = 2.0
_LOG_LINES_KEPT = 20
_LOG_LINE_BYTES_MAX = 64 * 1024


class Daemon:
    """A running daemon, hivemind's attachment to it, and the news of its death.

    The daemon's standard input is one end of a socket pair. It is the first thing the kernel
    closes when the daemon dies, so the other end tells at once, and without waiting, whether the
    daemon still lives.
    """

    def __init__(self, process: asyncio.subprocess.Process, lifeline: socket.socket) -> None:
        self._process = process
        self._output: asyncio.StreamReader = process.stdout or asyncio.StreamReader()
        self._lifeline = lifeline
        self._log: deque[str] = deque(maxlen=_LOG_LINES_KEPT)
        self.p2p: P2P = None
        self.addresses: tuple[str, ...] = ()
        self.control = Path()
        """The socket at which p2pd takes requests."""
        self.listener = Path()
        """The socket to which p2pd shall bring inbound streams."""

    def __repr__(self) -> str:
        return f"<Daemon pid={self.pid} {'dead' if self.is_dead() else 'alive'}>"

    @classmethod
    async def start(cls, settings: DaemonSettings, expected: PeerId) -> "Daemon":
        """A daemon that is ready for use, with the identity `expected`.

        `AddressInUse` if a port is taken; `TransportDown` with the daemon's last words otherwise.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        control = settings.folder / "p2pd.sock"
        control.unlink(missing_ok=True)
        try:
            with theirs, as_file(files(hivemind.hivemind_cli) / "p2pd") as program:
                process = await asyncio.create_subprocess_exec(
                    *command(program, control, settings),
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    env=environment(settings.folder),
                    cwd=settings.folder,
                    start_new_session=True,
                    limit=_LOG_LINE_BYTES_MAX,
                )
        except OSError as error:
            ours.close()
            raise TransportDown(f"the network daemon cannot be started: {error}") from error
        daemon = cls(process, ours)
        daemon.control = control
        daemon.listener = settings.folder / "inbound.sock"
        try:
            async with asyncio.timeout(settings.startup_timeout):
                await daemon._become_ready(settings, expected)
        except TimeoutError:
            await daemon.stop()
            raise TransportDown(
                f"the network daemon was not ready within {settings.startup_timeout:.0f} s"
                f"{daemon._last_words()}"
            ) from None
        except BaseException:
            await daemon.stop()
            raise
        return daemon

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self._process.pid

    def is_dead(self) -> bool:
        """Whether the daemon is gone, known without waiting."""
        if self._lifeline.fileno() < 0:
            return True
        try:
            return self._lifeline.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def wait_dead(self) -> str:
        """Return, with the reason, when the daemon died or hivemind lost its connection to it."""
        reader = self.p2p._client.control._read_task
        async with asyncio.TaskGroup() as tasks:  # the pipe is drained, or p2pd would stall
            death = tasks.create_task(self._wait_lifeline())
            drain = tasks.create_task(self._read_log())
            await asyncio.wait({death, reader}, return_when=asyncio.FIRST_COMPLETED)
            reason = "the network daemon died" if death.done() else _why_hung_up(reader)
            death.cancel()
            drain.cancel()
        return reason + self._last_words()

    def fail_pending(self) -> None:
        """Fail the calls that wait for an answer of the dead daemon; hivemind lets them hang."""
        if self.p2p is None:
            return
        for answer in tuple(self.p2p._client.control._pending_calls.values()):
            if not answer.done():
                answer.set_exception(P2PDaemonError("the network daemon died"))
                answer.exception()  # nobody may be waiting; that is no reason for a warning

    async def stop(self) -> None:
        """End the daemon and everything attached to it; harmless when it is dead already."""
        self.fail_pending()
        await self._detach()
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(TERMINATE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()
        self._lifeline.close()

    async def _detach(self) -> None:
        """Let hivemind go, and wait until its tasks have closed their sockets."""
        if self.p2p is None:
            return
        control = self.p2p._client.control
        await self.p2p.shutdown()
        for task in (control._read_task, control._write_task):
            await asyncio.gather(task, return_exceptions=True)

    async def refresh_addresses(self) -> None:
        """Ask the daemon where it can be dialled now; that changes when a relay takes us."""
        try:
            async with asyncio.timeout(CONTROL_SECONDS):
                found = await identify(self.control)
        except (OSError, EOFError, TimeoutError, P2PDaemonError, ControlFailure) as error:
            raise TransportDown(f"the network daemon does not answer: {error}") from error
        ours = [f"{address}/p2p/{self.p2p.peer_id.to_base58()}" for address in found]
        self.addresses = tuple(address for address in ours if is_dialable(Multiaddr(address)))

    async def _become_ready(self, settings: DaemonSettings, expected: PeerId) -> None:
        await self._wait_for_peer_id(settings.listen)
        settings.key_file.unlink(missing_ok=True)  # read by now; need not lie about
        try:
            self.p2p = await P2P.replicate(Multiaddr(f"/unix{self.control}"))
        except (OSError, EOFError, P2PDaemonError, ControlFailure) as error:
            raise TransportDown(f"the network daemon does not answer: {error}") from error
        self.p2p._client.control._pending_calls = _OpenCalls()
        if self.p2p.peer_id.to_base58() != expected:
            raise TransportDown("the network daemon runs with another identity than ours")
        await self.refresh_addresses()

    async def _wait_for_peer_id(self, listen: Sequence[str]) -> None:
        while line := await self._output.readline():
            self._keep(line)
            if line.startswith(b"Peer ID:"):
                return
        words = self._last_words()
        if "address already in use" in words:
            raise AddressInUse(f"another program listens on {' or '.join(listen)}")
        raise TransportDown(f"the network daemon ended at once{words}")

    async def _read_log(self) -> None:
        while True:
            try:
                line = await self._output.readline()
            except ValueError:
                continue  # a line too long to keep
            if not line:
                return
            self._keep(line)

    async def _wait_lifeline(self) -> None:
        try:
            await asyncio.get_running_loop().sock_recv(self._lifeline, 1)
        except OSError:
            return

    def _keep(self, line: bytes) -> None:
        self._log.append(line[:500].decode("utf-8", "replace").rstrip())

    def _last_words(self) -> str:
        return f" ({self._log[-1]})" if self._log else ""

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.kill(self._process.pid, number)  # Popen's own would reap it before asyncio does
        except ProcessLookupError:
            return


class _OpenCalls(dict[UUID, "asyncio.Future[bytes]"]):
    """The calls that wait for an answer, in place of hivemind's dictionary.

    A call whose caller has just given up counts as gone: hivemind would set its answer all the
    same, and the error would end its only connection to the daemon.
    """

    def __contains__(self, call: object) -> bool:
        answer = self.get(call) if isinstance(call, UUID) else None
        return answer is not None and not answer.done()


def _why_hung_up(reader: "asyncio.Task[None]") -> str:
    error = None if reader.cancelled() else reader.exception()
    return "the network daemon hung up" + (f": {error!r}" if error is not None else "")


def check_ports_free(listen: Sequence[str]) -> None:
    """`AddressInUse` if a port is taken.

    p2pd itself would share the port with another p2pd (SO_REUSEPORT), and both would get half of
    the connections.
    """
    for text in listen:
        host, port = parse_listen(text)
        if port == 0:
            continue
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise AddressInUse(f"cannot listen on {text}: {error.strerror}") from error
                raise AddressInUse(f"port {port} is taken; choose another, or 0 for any") from error
