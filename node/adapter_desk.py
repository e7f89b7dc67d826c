"""Specialists that come and go while the node runs: adapters on bases that are in memory.

Knows hosted models, their cards and who answers for them; must not know HTTP, the command line or
how cards reach other nodes.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.adapter_state import AdapterOrder, AdaptersState, AdapterState
from node.card_file import CARD_FILE
from node.cards import CardMaker, hosted_state
from node.config import ModelConfig
from node.hosting.hosted import HostedModel, host_adapter, unload_adapter
from node.hosting.page_memory import HostedPages
from node.services.ask import AskService
from node.services.memory import NodeMemory
from node.state import SCHEMA_VERSION, HostedState
from protocols import limits
from protocols.errors import ProtocolError, UserError
from protocols.ids import SpecialistId, parse_specialist_id
from protocols.records import CapabilityCard

LEAVING_SECONDS = 60.0
"""How long requests that were let in before an adapter was removed may still have it."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offered:
    """What a node hosts at the moment. Presences read `cards` whenever they announce."""

    models: dict[SpecialistId, HostedModel]
    cards: list[CapabilityCard]

    def states(self) -> tuple[HostedState, ...]:
        """As the owner sees it; the load is filled in by whoever knows it."""
        return tuple(
            hosted_state(self.models[SpecialistId(card.specialist)], card) for card in self.cards
        )


class AdapterDesk:
    """Changes what is `offered`, one change after the other; `changed` hears of each.

    What leaves is waited for in `tasks`: whoever asked for it may go away.
    """

    def __init__(
        self,
        offered: Offered,
        maker: CardMaker,
        service: AskService,
        memory: NodeMemory,
        changed: Callable[[], None],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._offered = offered
        self._maker = maker
        self._service = service
        self._memory = memory
        self._changed = changed
        self._tasks = tasks
        self._changing = asyncio.Lock()
        self._hidden = {
            (id(base.adapters), digest)
            for base in offered.models.values()
            for digest in base.adapters.digests - {card.adapter for card in offered.cards}
        }
        """What others on the node use without a name: it is not ours to unload."""

    def state(self) -> AdaptersState:
        """The specialists that are adapters, in the order in which they came."""
        found = []
        for card in self._offered.cards:
            model = self._offered.models[SpecialistId(card.specialist)]
            if model.adapter is not None:
                found.append(
                    AdapterState(
                        id=card.specialist,
                        base=card.base,
                        digest=card.adapter,
                        size=model.adapter.size,
                        domains=card.domains,
                        is_activated=card.is_activated,
                    )
                )
        return AdaptersState(SCHEMA_VERSION, tuple(found))

    async def add(self, order: AdapterOrder) -> None:
        """Load an adapter beside what is running, and offer it to everybody.

        `UserError` with what to do: no such base, a name that is taken, an adapter that fits no
        base or says nothing of what it is for. Nothing has changed then.
        """
        async with self._changing:
            base = self._base(order.base)
            _check_name(order.id)
            if len(self._offered.cards) >= limits.SPECIALISTS_MAX:
                raise UserError(
                    f"this node offers {limits.SPECIALISTS_MAX} specialists already, which is all "
                    "that it can announce: remove one first"
                )
            hosted = await host_adapter(base, order.id, Path(order.folder))
            try:
                self._require_new(hosted)
                card = await self._maker.card(hosted, _settings(order, hosted))
            except BaseException:
                await self._unload(hosted)
                raise
            self._offered.models[hosted.specialist] = hosted
            self._offered.cards.append(card)
            self._service.add(hosted)
            self._memory.models[hosted.specialist] = HostedPages.of(hosted)
            self._changed()
            _log.info("hosting %s, an adapter on %s", hosted.specialist, base.specialist)

    async def remove(self, name: str) -> None:
        """Offer a specialist no more at once; when this returns, its memory is free.

        Requests that are queued or in progress end first. After `LEAVING_SECONDS` those that are
        still queued are `NotHere`, and the memory is free when those in progress have ended.
        `UserError` if there is none of that name, or if it is no adapter.
        """
        async with self._changing:
            hosted = self._offered.models.get(SpecialistId(name))
            if hosted is None:
                there = ", ".join(one.id for one in self.state().adapters) or "none"
                raise UserError(f"this node hosts no {name!r}; adapters here: {there}")
            if hosted.adapter is None:
                raise UserError(
                    f"{name} is a base model: it stays until the node ends. What a node starts "
                    "with is set by [[models]] or `dslm up --model`"
                )
            del self._offered.models[hosted.specialist]
            self._offered.cards[:] = [
                card for card in self._offered.cards if card.specialist != name
            ]
            self._service.remove(hosted.specialist)
            self._changed()
            _log.info("hosting %s no more", name)
        await asyncio.shield(self._tasks.create_task(self._let_go(hosted)))

    async def _let_go(self, hosted: HostedModel) -> None:
        """Unload what is offered no more, when those who have it are done with it."""
        try:
            async with asyncio.timeout(LEAVING_SECONDS):
                await self._service.wait_left(hosted.specialist)
        except TimeoutError:
            _log.warning("unloading %s although it is still asked", hosted.specialist)
        async with self._changing:
            if hosted.specialist not in self._offered.models:  # else it came back meanwhile
                self._memory.models.pop(hosted.specialist, None)
            await self._unload(hosted)

    def _base(self, name: str) -> HostedModel:
        bases = {
            one.specialist: one for one in self._offered.models.values() if one.adapter is None
        }
        if not bases:
            raise UserError("this node hosts no model that an adapter could be for")
        if not name and len(bases) == 1:
            return next(iter(bases.values()))
        found = bases.get(SpecialistId(name))
        if found is None:
            what = f"no base model {name!r} here" if name else "several base models are here"
            raise UserError(f"{what}: name one of {', '.join(bases)}")
        return found

    def _require_new(self, hosted: HostedModel) -> None:
        if hosted.specialist in self._offered.models:
            raise UserError(
                f"{hosted.specialist} is hosted here already: remove it first, or give another name"
            )

    async def _unload(self, hosted: HostedModel) -> None:
        """Unless somebody else has the same adapter on the same base.

        In a thread: what is left of a shelf is copied, under a lock that a step may hold.
        """
        used = self._hidden | {
            (id(one.adapters), one.adapter.digest)
            for one in self._offered.models.values()
            if one.adapter is not None
        }
        if hosted.adapter and (id(hosted.adapters), hosted.adapter.digest) not in used:
            await asyncio.to_thread(unload_adapter, hosted)


def _check_name(name: str) -> None:
    try:
        parse_specialist_id(name or "its.own")
    except ProtocolError as error:
        raise UserError(str(error)) from error


def _settings(order: AdapterOrder, hosted: HostedModel) -> ModelConfig:
    """As a `[[models]]` table would say it."""
    card = Path(order.folder) / CARD_FILE
    return ModelConfig(
        path=hosted.base,
        id=hosted.specialist,
        domains=order.domains,
        description=order.description,
        adapter=order.folder,
        card=str(card) if card.is_file() else "",
    )
