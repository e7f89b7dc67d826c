"""How p2pd is started: its flags, its environment, what the kernel shall allow it.

Knows p2pd's command line; must not know the process. p2pd's own defaults are those of a public
IPFS node without limits; all that matters is said here.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from protocols import limits

MEMORY_LIMIT = "400MiB"
CONNECTIONS_LOW, CONNECTIONS_HIGH, CONNECTION_GRACE = 64, 96, "20s"
"""More than so many connections are cut down to the low mark, but none in its first 20 s."""
IDLE_SECONDS = 30
OPEN_FILES_MAX = 65_536
_ENVELOPE_BYTES = 4 * 1024

_LAUNCHER = """
import ctypes, os, resource, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
wanted = int(sys.argv[2])
if hard != resource.RLIM_INFINITY:
    wanted = min(wanted, hard)
if soft != resource.RLIM_INFINITY and soft < wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Asks the kernel to kill p2pd with its parent (PR_SET_PDEATHSIG); the parent may be gone by then,
hence the check; exec keeps the request. Go leaves the limit of open files where it is."""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """What one life of the daemon is started with. An empty `listen` means: cannot be dialled.

    `relays` are addresses of peers through which we may be reached.
    """

    folder: Path
    key_file: Path
    listen: tuple[str, ...]
    startup_timeout: float
    relays: tuple[str, ...] = ()
    message_bytes_max: int = limits.DHT_MESSAGE_BYTES_MAX


def command(program: Path, control: Path, settings: DaemonSettings) -> list[str]:
    """The command line that starts p2pd, to listen at `control`, in a launcher of ours."""
    flags = {
        "listen": f"/unix{control}",
        "id": str(settings.key_file),
        "dhtServer": "1",
        "b": "0",
        "noise": "1",
        "tls": "0",
        "autonat": "0",
        "natPortMap": "0",
        "connManager": "1",
        "connLo": str(CONNECTIONS_LOW),
        "connHi": str(CONNECTIONS_HIGH),
        "connGrace": CONNECTION_GRACE,
        "idleTimeout": f"{IDLE_SECONDS}s",
        "persistentConnMaxMsgSize": str(settings.message_bytes_max + _ENVELOPE_BYTES),
        **_listening(settings.listen),
        **_relaying(settings.relays),
    }
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(OPEN_FILES_MAX)]
    return [*launcher, str(program), *(f"-{name}={value}" for name, value in flags.items())]


def environment(folder: Path) -> dict[str, str]:
    """All the environment that p2pd gets."""
    return {
        "GOMEMLIMIT": MEMORY_LIMIT,
        "GOLOG_LOG_LEVEL": "error",
        "HOME": str(folder),
    }


def _listening(listen: tuple[str, ...]) -> dict[str, str]:
    return {"hostAddrs": ",".join(listen)} if listen else {"noListenAddrs": "1"}


def _relaying(relays: tuple[str, ...]) -> dict[str, str]:
    """`relay` lets us speak through relays, and makes p2pd a small relay itself.

    It does so whatever `relayService` says, which only governs a second one that starts when p2pd
    believes itself public; see `Libp2pTransport.shut` for how it is kept from relaying.
    """
    flags = {"relay": "1", "relayService": "0", "relayDiscovery": "0"}
    if not relays:
        return flags | {"autoRelay": "0"}
    return flags | {
        "autoRelay": "1",
        "trustedRelays": ",".join(relays),
        "forceReachabilityPrivate": "1",
    }
