"""Two real nodes and the real model: the second reads the first one's memory, and says the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from coordinator.answer import AnswerRequest, Completed, Delta
from coordinator.memory import preparing, with_ticket
from node.app import Node, running_node
from node.config import (
    ApiConfig,
    EngineConfig,
    MemoryConfig,
    ModelConfig,
    NetworkConfig,
    NodeConfig,
    RouterConfig,
    SwarmConfig,
)
from node.identity import load_or_create
from node.paths import paths_below
from protocols.errors import DslmError
from protocols.ids import PeerId, RequestId
from protocols.messages.ask import Chat, ChatMessage, Sampling

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STORY = "The keeper of the lighthouse found a bottle on the rocks one morning in October. " * 24
MODEL = "smollm2"


def settings(home: Path, model: Path, trusted: str, bootstrap: tuple[str, ...] = ()) -> NodeConfig:
    return NodeConfig(
        paths_below(home),
        api=ApiConfig(listen="127.0.0.1:0"),
        network=NetworkConfig(listen=("/ip4/127.0.0.1/tcp/0",), bootstrap=bootstrap),
        swarm=SwarmConfig(name="trial", newcomers="welcome"),
        engine=EngineConfig(threads=1, precision="fp32"),
        memory=MemoryConfig(pages="fp32"),
        router=RouterConfig(encoder="off", trusted=(trusted,)),
        models=(ModelConfig(str(model), id=MODEL, slots=2, context=1_024),),
    )


@asynccontextmanager
async def two_nodes(folder: Path, model: Path) -> AsyncIterator[tuple[Node, Node]]:
    names = ("first", "second")
    one, two = (load_or_create(paths_below(folder / name).identity_file).peer_id for name in names)
    async with running_node(settings(folder / "first", model, two)) as first:
        address = first.presences.named(None).network.transport.addresses()[0]
        config = settings(folder / "second", model, one, (address,))
        async with running_node(config) as second:
            yield first, second


async def said(node: Node, request: AnswerRequest) -> tuple[str, Completed]:
    texts, last = [], None
    async with aclosing(node.presences.named(None).coordinator.answer(request)) as events:
        async for event in events:
            if isinstance(event, Delta):
                texts.append(event.text)
            elif isinstance(event, Completed):
                last = event
    assert last is not None
    return "".join(texts) + last.text, last


async def found(node: Node, request: AnswerRequest) -> None:
    for _ in range(300):
        try:
            await said(node, replace(request, max_tokens=1, prompt=Chat((turn("Hi"),))))
        except DslmError:
            await asyncio.sleep(0.2)
        else:
            return
    raise AssertionError("the nodes did not find each other")


def turn(text: str, role: str = "user") -> ChatMessage:
    return ChatMessage(role, text)  # type: ignore[arg-type]


async def test_the_second_host_goes_on_from_the_first_ones_pages(
    tmp_path: Path, smollm2_path: Path
) -> None:
    async with two_nodes(tmp_path, smollm2_path) as (first, second):
        me, there = (node.presences.named(None).me for node in (first, second))
        request = AnswerRequest(
            RequestId("task"), MODEL, Chat((turn(STORY + "What did the keeper find?"),)),
            Sampling(), 12, 120.0,
        )  # fmt: skip
        await found(first, replace(request, node=there))
        steps = [with_ticket(request, Random(n)) for n in range(3)]
        answer, _ = await said(first, replace(steps[0], node=me))
        assert isinstance(request.prompt, Chat)
        transcript = Chat(
            (*request.prompt.messages, turn(answer, "assistant"), turn("Where was it?"))
        )
        step = replace(steps[0], prompt=transcript, node=there)
        fetched, end = await said(first, replace(step, memory_at=me))
        assert end.memory.pages_fetched > 10
        assert end.memory.bytes_fetched >= end.memory.pages_fetched * 46_080 * 16
        assert end.memory.pages_reused >= end.memory.pages_fetched
        anew, end = await said(first, replace(step, memory_ticket=steps[1].memory_ticket))
        assert end.memory.pages_fetched == 0
        assert end.memory.pages_reused <= 10, "nobody else finds what was fetched"
        assert fetched == anew
        await prepared(first, second, replace(steps[2], node=me), transcript)


async def prepared(first: Node, second: Node, request: AnswerRequest, transcript: Chat) -> None:
    """Another client's prompt, made ready at the second host before it is asked."""
    there = PeerId(second.presences.named(None).me)
    step = replace(request, prompt=transcript, tenant="other")
    await said(first, preparing(step, there))
    _, end = await said(first, replace(step, node=there))
    assert end.memory.pages_reused >= end.prompt_tokens // 16 - 1
    assert end.memory.bytes_fetched == 0
