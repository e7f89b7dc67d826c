"""Keeps one daemon alive: starts it, hears of its death, starts it again with the same identity.

Knows the order of attaching and detaching and when to try again; must not know what the daemon
is used for.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from protocols.adapters.libp2p.daemon import Daemon, check_ports_free
from protocols.adapters.libp2p.flags import DaemonSettings
from protocols.adapters.libp2p.runtime import RuntimeFolder
from protocols.errors import DslmError, TransportDown
from protocols.signing import Identity

RESTART_SECONDS_FIRST = 0.1
RESTART_SECONDS_MAX = 5.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attachment:
    """What to do with each new daemon, and what when it died."""

    attach: Callable[[Daemon], Awaitable[None]]
    detach: Callable[[], None]


class Supervisor:
    """The daemon's keeper. `start` once, then leave `run` running, then `stop`."""

    def __init__(
        self,
        identity: Identity,
        folder: RuntimeFolder,
        settings: DaemonSettings,
        attachment: Attachment,
    ) -> None:
        self._identity = identity
        self._folder = folder
        self._settings = settings
        self._attachment = attachment
        self._daemon: Daemon | None = None
        self._trouble = "starting"

    def __repr__(self) -> str:
        return f"<Supervisor {self.status()} {self._daemon}>"

    @property
    def listen(self) -> tuple[str, ...]:
        """Where the daemon listens; a port that it was free to choose is named once it runs."""
        return self._settings.listen

    def status(self) -> str:
        """`up`, or why not."""
        return self._trouble or "up"

    async def start(self) -> None:
        """The first daemon, attached; raises what is wrong if there can be none."""
        check_ports_free(self._settings.listen)
        daemon = await self._launch()
        # the ports that the first daemon was given are ours for all its successors
        self._settings = replace(self._settings, listen=_fixed(self._settings.listen, daemon))

    async def run(self) -> None:
        """Replace the daemon each time it dies; ends only by cancellation."""
        while self._daemon is not None:
            self._trouble = await self._daemon.wait_dead()
            _logger.warning("%s; restarting it", self._trouble)
            await self._retire()
            await self._relaunch()

    async def stop(self) -> None:
        """End the daemon."""
        self._trouble = "stopped"
        await self._retire()

    async def _relaunch(self) -> None:
        pause = RESTART_SECONDS_FIRST
        while self._daemon is None:
            try:
                await self._launch()
            except DslmError as error:
                self._trouble = str(error)
                _logger.warning("restarting the network daemon failed: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, RESTART_SECONDS_MAX)

    async def _launch(self) -> Daemon:
        self._folder.write_private(self._settings.key_file.name, self._identity.to_libp2p())
        daemon = await Daemon.start(self._settings, self._identity.peer_id)
        try:
            async with asyncio.timeout(self._settings.startup_timeout):
                await self._attachment.attach(daemon)
        except BaseException as error:
            self._attachment.detach()
            await daemon.stop()
            if isinstance(error, TimeoutError):
                raise TransportDown("the network daemon does not answer") from error
            raise
        self._daemon = daemon
        self._trouble = ""
        return daemon

    async def _retire(self) -> None:
        self._attachment.detach()
        if self._daemon is not None:
            daemon, self._daemon = self._daemon, None
            await daemon.stop()


def _fixed(listen: tuple[str, ...], daemon: Daemon) -> tuple[str, ...]:
    """`listen` with every port 0 replaced by the port that was found for it."""
    found = [address.rpartition("/p2p/")[0] for address in daemon.addresses]
    fixed = []
    for text in listen:
        prefix, _, port = text.rpartition("/")
        if port == "0":
            wildcard = prefix.startswith(("/ip4/0.0.0.0/", "/ip6/::/"))
            family = "/".join(prefix.split("/")[:2]) + "/"
            candidates = [
                address
                for address in found
                if address.startswith(family if wildcard else f"{prefix}/")
            ]
            port = candidates[0].rpartition("/")[2] if candidates else port
        fixed.append(f"{prefix}/{port}")
    return tuple(fixed)
