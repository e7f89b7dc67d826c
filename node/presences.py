"""All swarms that this node takes part in: which they are, starting and leaving them while it runs.

Knows the rule that a node without a swarm of its own is in the open one that its settings name;
must not know what goes on inside a presence.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from node.config import NodeConfig
from node.footing import Ground, Place
from node.identity import load_or_create
from node.joining import join
from node.presence import Presence, take_part
from node.state import Check, JoinReport
from node.swarms.durable import make_private_folder
from node.swarms.folder import CurrentSwarm, FirstSwarm, SwarmFolder, swarm_names
from protocols import allowances
from protocols.errors import DslmError, UserError
from protocols.ids import PeerId
from protocols.membership.charter import open_charter
from protocols.membership.invite import PREFIX, Invite, parse_invite
from protocols.ports import Allowance
from protocols.signing import Identity

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Run:
    """One presence and the task in which it lives."""

    started: "asyncio.Future[Presence]"
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None


class Presences:
    """Presences run as tasks of `tasks`; `close` ends them."""

    def __init__(self, config: NodeConfig, tasks: asyncio.TaskGroup) -> None:
        self._config = config
        self._tasks = tasks
        self._parent = config.paths.swarms
        self._current = CurrentSwarm(self._parent)
        self._first = FirstSwarm(self._parent)
        self._runs: dict[str, _Run] = {}
        self._alive: dict[str, Presence] = {}
        self._changing = asyncio.Lock()
        self._ground: Ground | None = None

    def __repr__(self) -> str:
        return f"<Presences in {', '.join(self._alive) or 'no swarm'}>"

    async def start(self, ground: Ground) -> None:
        """Take part in every swarm that there is a folder for, or else in the open one."""
        self._ground = ground
        names = swarm_names(self._parent)
        for name in names:
            await self._begin(self._place(SwarmFolder.load(self._parent / name)))
        if not names:
            await self._begin(self._open_place())

    async def close(self) -> None:
        """End all presences."""
        for name in tuple(self._runs):
            await self._end(name)

    def all(self) -> tuple[Presence, ...]:
        """The current one first, then by name."""
        current = self._current_name()
        return tuple(
            self._alive[name] for name in sorted(self._alive, key=lambda one: (one != current, one))
        )

    def cards_changed(self) -> None:
        """Announce what is hosted now in every swarm; we ourselves know it when this returns."""
        for presence in self._alive.values():
            presence.announcer.changed()

    def named(self, name: str | None) -> Presence:
        """The presence in `name`, or in the current swarm; `UserError` if there is none."""
        wanted = self._current_name() if name is None else name
        found = self._alive.get(wanted)
        if found is None:
            there = ", ".join(sorted(self._alive)) or "none at the moment"
            raise UserError(f"this node is in no swarm {wanted!r}; it is in: {there}")
        return found

    def allowance(self, peer: PeerId) -> Allowance:
        """What `peer` may use, by the swarm in which it was admitted."""
        granted = [presence.gate.allowance(peer) for presence in self._alive.values()]
        return max(granted, key=lambda one: one.requests_per_second, default=allowances.NOBODY)

    async def use(self, name: str) -> None:
        """Send requests that name no swarm to `name` from now on."""
        self.named(name)
        if name in swarm_names(self._parent):
            self._current.choose(name)

    async def load(self, name: str) -> None:
        """Begin to take part in a swarm whose folder was made by somebody else."""
        async with self._changing:
            if name in self._alive:
                return
            if name not in swarm_names(self._parent):
                raise UserError(f"there is no folder of a swarm {name!r} below {self._parent}")
            folder = SwarmFolder.load(self._parent / name)
            try:
                await self._leave_open()
                await self._begin(self._place(folder))
            except BaseException:
                await self._in_background(self._return())
                raise

    async def leave(self, name: str) -> None:
        """Take part no more, and delete the papers; the last swarm left is the open one."""
        async with self._changing:
            presence = self.named(name)
            if not presence.charter.owner:
                raise UserError(
                    f"{name} is the open swarm that a node is in when it is in no other; "
                    "`dslm down` leaves it"
                )
            await self._in_background(self._leave(presence))

    async def join(self, target: str, now: float) -> AsyncGenerator[Check | JoinReport, None]:
        """Join by an invite, or through an address of a swarm that this node is in already."""
        if not target.strip().startswith(PREFIX):
            presence = self.named(None)
            async with aclosing(join(presence, (target,), None, now)) as steps:
                async for step in steps:
                    yield step
            return
        invite = parse_invite(target)
        name = invite.charter.name
        if name in self._alive and self._alive[name].charter == invite.charter:
            if invite.charter.is_private:
                raise UserError(f"this node is in the swarm {name} already")
            async with aclosing(join(self._alive[name], invite.addresses, invite, now)) as steps:
                async for step in steps:
                    yield step
            return
        async with self._changing, aclosing(self._join_new(invite, now)) as steps:
            async for step in steps:
                yield step

    # ----------------------------------------------------------------------------------------

    async def _join_new(
        self, invite: Invite, now: float
    ) -> AsyncGenerator[Check | JoinReport, None]:
        """Make a folder and a presence; both are gone again if the join comes to nothing."""
        charter = invite.charter
        if not charter.owner and not self._is_open_only():
            raise UserError(
                f"{charter.name} is an open swarm, and a node is in one only while it is in no "
                f"other: this one is in {', '.join(sorted(self._alive))}"
            )
        if charter.owner:
            folder = SwarmFolder.create(self._parent, charter, Identity.generate())
        else:
            folder = None
        has_joined = is_undone = False
        try:
            place = self._place(folder) if folder else self._open_place(charter.name)
            await self._leave_open()
            presence = await self._begin(place)
            async with aclosing(join(presence, invite.addresses, invite, now)) as steps:
                async for step in steps:
                    if isinstance(step, JoinReport):
                        has_joined, is_undone = step.joined, not step.joined
                        if is_undone:
                            await self._in_background(self._undo(charter.name, folder))
                    yield step
        finally:
            if not has_joined and not is_undone:  # whoever asked for it went away, say
                await self._in_background(self._undo(charter.name, folder))

    async def _undo(self, name: str, folder: SwarmFolder | None) -> None:
        if name in self._runs:
            await self._end(name)
        try:
            if folder is not None:
                folder.remove()
        finally:
            await self._return()

    async def _leave(self, presence: Presence) -> None:
        await self._end(presence.name)
        try:
            presence.folder.remove()
        finally:
            await self._return()

    async def _return(self) -> None:
        """Nobody is in no swarm at all, if that can be."""
        if self._alive:
            return
        try:
            await self._begin(self._open_place())
        except DslmError as error:
            _log.error("in no swarm now: %s", error)

    async def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` to its end, even if whoever waits is cancelled: that is told afterwards.

        What goes wrong with it is the business of whoever waits, not of the whole node.
        """
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def carry_out() -> None:
            try:
                await work
                outcome.set_result(None)
            except DslmError as error:
                outcome.set_exception(error)
            finally:
                outcome.cancel()

        self._tasks.create_task(carry_out())
        try:
            await asyncio.shield(outcome)
        except asyncio.CancelledError:
            await asyncio.wait([outcome])
            raise

    def _current_name(self) -> str:
        chosen = self._current.name()
        return chosen if chosen in self._alive else next(iter(sorted(self._alive)), "")

    def _is_open_only(self) -> bool:
        return not any(presence.charter.owner for presence in self._alive.values())

    async def _leave_open(self) -> None:
        """The open swarm is for nodes that are in no other."""
        for presence in tuple(self._alive.values()):
            if not presence.charter.owner:
                await self._end(presence.name)

    def _open_place(self, name: str = "") -> Place:
        charter = open_charter(name or self._config.swarm.name)
        path = self._config.paths.open_swarms / charter.name
        make_private_folder(path.parent)
        make_private_folder(path)
        folder = SwarmFolder(path, charter, load_or_create(self._config.paths.identity_file))
        network = self._config.network
        return Place(folder, network.listen, network.bootstrap)

    def _place(self, folder: SwarmFolder) -> Place:
        """The first swarm listens where the settings say, each further one at a port of its own;
        both stay so over restarts, whoever comes and goes."""
        network, first, kept = self._config.network, self._first.name(), folder.listen_addresses()
        if first == folder.name or not (first or kept):
            self._first.choose(folder.name)
            return Place(folder, network.listen, network.bootstrap)
        anywhere = tuple(f"{one.rpartition('/')[0]}/0" for one in network.listen)
        return Place(folder, kept or anywhere)

    async def _begin(self, place: Place) -> Presence:
        run = _Run(asyncio.get_running_loop().create_future())
        name = place.folder.name
        self._runs[name] = run
        run.task = self._tasks.create_task(self._live(place, run))
        try:
            presence = await asyncio.shield(run.started)
        except BaseException:
            await self._end(name)
            raise
        self._alive[name] = presence
        _log.info("in the swarm %s as %s", name, presence.me)
        return presence

    async def _live(self, place: Place, run: _Run) -> None:
        """The task of one presence. How it fails before it has begun is its starter's business."""
        if self._ground is None:
            raise RuntimeError("start comes first")
        try:
            async with take_part(self._ground, place) as presence:
                run.started.set_result(presence)
                await run.leaving.wait()
        except* DslmError as group:
            if run.started.done():
                raise
            run.started.set_exception(_first(group))
        finally:
            if not run.started.done():
                run.started.cancel()

    async def _end(self, name: str) -> None:
        self._alive.pop(name, None)
        run = self._runs.pop(name)
        run.leaving.set()
        if run.task is None:
            return
        if not run.started.done():
            run.task.cancel()
        await asyncio.wait([run.task])


def _first(group: BaseExceptionGroup[DslmError]) -> DslmError:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
