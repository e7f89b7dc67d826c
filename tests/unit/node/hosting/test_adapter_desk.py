"""Adapters that come and go on running models: what is offered, answered and kept in memory."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node.adapter_desk import AdapterDesk, Offered
from node.adapter_state import AdapterOrder
from node.cards import CardMaker
from node.config import ModelConfig
from node.engine.base import EngineRequest, Generated
from node.hosting.hosted import HostedModel, HostedSpec, host_adapter, load_model, unload_adapter
from node.profile import Profile
from node.services.ask import AskService
from node.services.memory import NodeMemory
from protocols.adapters.clock import SystemClock
from protocols.errors import ConfigError, ModelFileError, NotHere, UserError
from protocols.ids import SpecialistId, SwarmId
from protocols.messages.ask import Ask, Chat, ChatMessage, Sampling, Tokens
from tests.unit.node.hosting.test_adapters import peft_folder

PROMPT = (*range(10, 30), 9, 8, 40)


@dataclass
class Hosting:
    """A desk over one base, and what it told."""

    base: HostedModel
    offered: Offered
    service: AskService
    memory: NodeMemory
    tasks: asyncio.TaskGroup
    heard: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desk = AdapterDesk(
            self.offered, CardMaker(None), self.service, self.memory, self.changed, self.tasks
        )

    def changed(self) -> None:
        self.heard.append(tuple(card.specialist for card in self.offered.cards))


@pytest.fixture
async def hosting(make_folder: Callable[..., Path]) -> AsyncIterator[Hosting]:
    base = await load_model(HostedSpec(make_folder(), SpecialistId("org/tiny"), slots=2))
    models = {base.specialist: base}
    card = await CardMaker(None).card(base, ModelConfig("tiny"))
    clock = SystemClock()
    async with asyncio.TaskGroup() as tasks:
        yield Hosting(
            base,
            Offered(dict(models), [card]),
            AskService(models, clock),
            NodeMemory({}, clock),
            tasks,
        )
    await base.close()


def order(folder: Path, **changes: object) -> AdapterOrder:
    return AdapterOrder(str(folder), "lab/tax", domains=("law/tax",), **changes)  # type: ignore[arg-type]


async def test_what_is_added_is_offered_answered_and_listed(
    hosting: Hosting, tmp_path: Path
) -> None:
    await hosting.desk.add(order(peft_folder(tmp_path / "one")))
    assert hosting.heard == [("org/tiny", "lab/tax")]
    (listed,) = hosting.desk.state().adapters
    assert (listed.id, listed.base, listed.domains) == ("lab/tax", "tiny-model", ("law/tax",))
    assert listed.size > 0
    card = hosting.offered.cards[1]
    assert card.adapter == listed.digest
    assert card.base_digest == hosting.base.model_digest != card.model_digest
    assert hosting.offered.states()[1].own == listed.size
    assert hosting.service.is_healthy(SpecialistId("lab/tax"))
    assert hosting.memory.models.keys() == {"lab/tax"}
    special = hosting.offered.models[SpecialistId("lab/tax")]
    assert await said(special) != await said(hosting.base)


async def test_a_profile_tells_what_is_there_at_the_moment(
    hosting: Hosting, tmp_path: Path
) -> None:
    class Transport:
        peer_id = "12D3KooWKZZz7y5bxekHwRgf2mFs38Uump9pMnzF7DizDsaczQwd"

    profile = Profile(
        "node",
        SwarmId("public"),
        hosting.offered.cards,
        lambda: (),
        Transport(),  # type: ignore[arg-type]
        hosting.service,
        SystemClock(),
    )
    assert profile.offer().node.specialists == ("org/tiny",)
    await hosting.desk.add(order(peft_folder(tmp_path / "one")))
    assert profile.offer().node.specialists == ("org/tiny", "lab/tax")
    await hosting.desk.remove("lab/tax")
    assert profile.offer().node.specialists == ("org/tiny",)
    assert [card.specialist for card in profile.offer().cards] == ["org/tiny"]


async def test_an_answer_in_progress_survives_the_removal(hosting: Hosting, tmp_path: Path) -> None:
    await hosting.desk.add(order(peft_folder(tmp_path / "one")))
    special = hosting.offered.models[SpecialistId("lab/tax")]
    wanted = await said(special)
    generation = special.generate(EngineRequest("b", PROMPT, 12, Sampling(), frozenset()))
    first = await generation.next()
    await hosting.desk.remove("lab/tax")
    rest = [await generation.next() for _ in range(12)]
    assert [one.token_id for one in (first, *rest) if isinstance(one, Generated)] == wanted
    assert hosting.heard[-1] == ("org/tiny",)
    assert not hosting.memory.models
    assert not hosting.service.is_healthy(SpecialistId("lab/tax"))
    with pytest.raises(NotHere):
        await anext(hosting.service.answer(an_ask()))
    assert await said(hosting.base)
    assert hosting.base.adapters.size == 0, "the engine let go with the last token"


async def test_who_was_let_in_before_the_removal_is_answered_and_nobody_after(
    hosting: Hosting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hosting.desk.add(order(peft_folder(tmp_path / "one")))
    unloaded = spy_on_unloading(monkeypatch)
    wanted = await heard(hosting.service, an_ask())
    async with asyncio.TaskGroup() as tasks:
        answers = [
            tasks.create_task(heard(hosting.service, an_ask()))
            for _ in range(3 * hosting.base.slots)
        ]
        await asyncio.sleep(0)  # they are let in
        admission = hosting.service.admission(SpecialistId("lab/tax"))
        assert (admission.running, admission.waiting) == (2, 4)
        removal = tasks.create_task(hosting.desk.remove("lab/tax"))
        await asyncio.sleep(0)
        with pytest.raises(NotHere):
            await anext(hosting.service.answer(an_ask()))
        assert hosting.heard[-1] == ("org/tiny",)
        await asyncio.wait(answers)
    assert removal.done()
    assert [answer.result() for answer in answers] == [wanted] * 6
    assert hosting.base.adapters.size == 0
    assert unloaded == [False], "off the thread of the event loop"


async def test_the_wait_for_those_inside_has_an_end(
    hosting: Hosting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.adapter_desk.LEAVING_SECONDS", 0.0)
    await hosting.desk.add(order(peft_folder(tmp_path / "one")))
    async with aclosing(hosting.service.answer(an_ask())) as answer:
        await anext(answer)
        await hosting.desk.remove("lab/tax")
        assert hosting.base.adapters.digests == frozenset()


async def test_what_comes_back_while_it_leaves_stays(hosting: Hosting, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "one")
    await hosting.desk.add(order(folder))
    async with aclosing(hosting.service.answer(an_ask())) as answer:
        await anext(answer)
        removal = hosting.tasks.create_task(hosting.desk.remove("lab/tax"))
        await asyncio.sleep(0)
        await hosting.desk.add(order(folder))
    await removal
    assert len(hosting.base.adapters.digests) == 1
    assert hosting.memory.models.keys() == {"lab/tax"}
    assert await heard(hosting.service, an_ask())


async def test_the_same_adapter_under_two_names_stays_until_both_are_gone(
    hosting: Hosting, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "one")
    await hosting.desk.add(order(folder))
    await hosting.desk.add(AdapterOrder(str(folder), "lab/other", domains=("law",)))
    other = hosting.offered.models[SpecialistId("lab/other")]
    wanted = await said(other)
    await hosting.desk.remove("lab/tax")
    assert await said(other) == wanted
    await hosting.desk.remove("lab/other")
    assert hosting.base.adapters.digests == frozenset()


async def test_what_the_node_uses_itself_is_not_unloaded(hosting: Hosting, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "one")
    await host_adapter(hosting.base, "planner", folder)  # before there was a desk
    hosting.__post_init__()
    await hosting.desk.add(order(folder))
    await hosting.desk.remove("lab/tax")
    assert len(hosting.base.adapters.digests) == 1


async def test_what_cannot_be_changes_nothing(hosting: Hosting, tmp_path: Path) -> None:
    folder, desk = peft_folder(tmp_path / "one"), hosting.desk
    with pytest.raises(ConfigError, match="needs domains"):
        await desk.add(AdapterOrder(str(folder), "lab/tax"))
    with pytest.raises(UserError, match=r"no base model 'other' here: name one of org/tiny"):
        await desk.add(order(folder, base="other"))
    with pytest.raises(ModelFileError):
        await desk.add(order(tmp_path))
    with pytest.raises(UserError, match="is no specialist id"):
        await desk.add(AdapterOrder(str(folder), "No Name", domains=("law",)))
    assert hosting.heard == []
    assert hosting.base.adapters.digests == frozenset()
    await desk.add(order(folder))
    with pytest.raises(UserError, match="hosted here already"):
        await desk.add(order(folder))
    assert len(hosting.base.adapters.digests) == 1, "the one that is hosted is still loaded"
    with pytest.raises(UserError, match="is a base model"):
        await desk.remove("org/tiny")
    with pytest.raises(UserError, match=r"hosts no 'lab/none'; adapters here: lab/tax"):
        await desk.remove("lab/none")
    assert len(hosting.heard) == 1


def an_ask() -> Ask:
    return Ask("r", 0, "lab/tax", Chat((ChatMessage("user", "hi"),)), Sampling(), 4, 30.0)


async def heard(service: AskService, ask: Ask) -> list[int]:
    messages = [message async for message in service.answer(ask)]
    return [id_ for message in messages if isinstance(message, Tokens) for id_ in message.ids]


def spy_on_unloading(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each call, whether it is on the main thread."""
    calls: list[bool] = []

    def spy(hosted: HostedModel) -> None:
        calls.append(threading.current_thread() is threading.main_thread())
        unload_adapter(hosted)

    monkeypatch.setattr("node.adapter_desk.unload_adapter", spy)
    return calls


async def said(model: HostedModel) -> list[int]:
    generation = model.generate(EngineRequest("a", PROMPT, 12, Sampling(), frozenset()))
    outputs = [await generation.next() for _ in range(13)]
    return [one.token_id for one in outputs if isinstance(one, Generated)]
