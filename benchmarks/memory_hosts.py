"""The nodes of `benchmarks/memory.py`: one in this process, one in another, and steps on them.

Knows how to start nodes and to ask; must not know what is compared.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from coordinator.answer import AnswerRequest, Completed, Delta
from coordinator.coordinator import Coordinator
from coordinator.memory import preparing, with_ticket
from node.app import Node, running_node
from node.cli.client import Client
from node.cli.trial_swarm import TrialNode, _free_port, address_of
from node.config import (
    EngineConfig,
    MemoryConfig,
    ModelConfig,
    NetworkConfig,
    NodeConfig,
    RouterConfig,
    SwarmConfig,
    environment,
)
from node.config_reader import Overrides, load_process_config
from node.engine.weights.packings import Int8Rows
from node.hosting.compact_adapter import CompactConfig, write_compact
from node.hosting.fetch import resolve
from node.hosting.read import read_model
from node.identity import load_or_create
from node.paths import Paths, paths_below
from protocols.errors import DslmError, UserError
from protocols.ids import PeerId, RequestId
from protocols.messages.ask import Chat, ChatMessage, LogitBias, Sampling

BITS_PER_SECOND, DELAY_SECONDS = 200e6, 0.002
SPECIALISTS = ("one", "two", "three")
QUESTIONS = (
    "What is the main point? Answer briefly.",
    "Now check this from another side and say what is missing.",
    "Put both together in two sentences.",
)
ANSWER_TOKENS = 32
NO_END = (LogitBias(0, -100.0), LogitBias(2, -100.0))
"""The ids that end an answer: all answers are as long as they may be."""
START_SECONDS = 300.0
"""For a first start, in which kernels are compiled."""
WORDS = (
    *("the", "of", "river", "stone", "value", "study", "court"),
    *("patient", "energy", "market", "data", "price", "light", "water"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured. `tokens` is about how long the prompt is."""

    precision: str
    tokens: int
    rounds: int
    pages: tuple[str, ...]
    threads: int = 0


@dataclass(frozen=True, slots=True)
class There:
    """Another host: its identity, and where the link to it begins."""

    peer: PeerId
    address: str


class Chain:
    """One task. Prompts of different `seed`s have nothing in common but the system's turn."""

    def __init__(self, host: "Host", seed: int, answers: Sequence[str] = ()) -> None:
        rng = Random(seed)
        words = [rng.choice(WORDS) for _ in range(host.words)]
        self._host = host
        self._turns = [ChatMessage("user", " ".join(words) + "\n" + QUESTIONS[0])]
        self.answers = list(answers)
        self._request = with_ticket(
            AnswerRequest(
                RequestId(f"task{seed}"),
                SPECIALISTS[0],
                Chat(tuple(self._turns)),
                Sampling(logit_bias=NO_END),
                ANSWER_TOKENS,
                120.0,
            ),
            rng,
        )
        self.note = ""
        self.tokens = ANSWER_TOKENS

    async def step(
        self,
        index: int,
        at: PeerId | str | None = None,
        memory_at: PeerId | str | None = None,
        prepare_at: str | None = None,
    ) -> float:
        """Seconds to the first token of step `index`; what it says is kept for those after it."""
        request = replace(
            self._request,
            model=SPECIALISTS[index],
            prompt=self._prompt(index),
            max_tokens=self.tokens,
            node=PeerId(at or self._host.me),
            memory_at=PeerId(memory_at) if memory_at else None,
        )
        began, first, texts = time.perf_counter(), 0.0, []
        async with aclosing(self._host.coordinator.answer(request)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    texts.append(event.text)
                    if not first:
                        first = time.perf_counter() - began
                        if prepare_at:
                            self._host.prepare(self._prepare(index + 1, PeerId(prepare_at)))
                if isinstance(event, Completed):
                    used = event.memory
                    self.note = (
                        f"{event.prompt_tokens} tokens; pages reused {used.pages_reused}, "
                        f"fetched {used.pages_fetched} in {used.bytes_fetched / 1e6:.1f} MB"
                    )
        if index == len(self.answers):
            self.answers.append("".join(texts))
        return first

    def _prompt(self, index: int) -> Chat:
        turns = list(self._turns)
        for answer, question in zip(self.answers[:index], QUESTIONS[1:], strict=False):
            turns += [ChatMessage("assistant", answer), ChatMessage("user", question)]
        return Chat(tuple(turns))

    async def _prepare(self, index: int, at: PeerId) -> None:
        step = replace(
            self._request,
            model=SPECIALISTS[index],
            prompt=Chat(tuple(self._turns)),
            memory_at=PeerId(self._host.me),
        )
        with suppress(DslmError):
            async with aclosing(self._host.coordinator.answer(preparing(step, at))) as events:
                async for _ in events:
                    pass


class Host:
    """The node of this process."""

    def __init__(self, node: Node, words: int, tasks: asyncio.TaskGroup) -> None:
        presence = node.presences.named(None)
        self.coordinator: Coordinator = presence.coordinator
        self.me = presence.me
        self.words = words
        self._tasks = tasks

    def prepare(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` done while steps go on."""
        self._tasks.create_task(work)

    def chain(self, seed: int, answers: Sequence[str] = ()) -> Chain:
        """A task of its own."""
        return Chain(self, seed, answers)

    async def warm_up(self, there: PeerId | None = None) -> None:
        """Until the other host is known, has been asked, and rates are measured."""
        for peer in (self.me, there) if there else (self.me,):
            for number in range(2):
                chain = self.chain(50_000 + number)
                for _ in range(100):
                    try:
                        await chain.step(0, at=peer)
                        break
                    except DslmError:
                        await asyncio.sleep(0.3)


def _paths(home: Path) -> Paths:
    models = load_process_config(Overrides()).config.paths.models
    return replace(paths_below(home), models=models)


def make_adapters(folder: Path, model: Path) -> None:
    """Three activated adapters of the usual size, with small random weights."""
    weights = read_model(model)
    invocation = weights.tokenizer.encode_text("<|im_start|>assistant\n")
    for seed, name in enumerate(SPECIALISTS):
        compact = CompactConfig(
            "dslm-adapter-1", seed=seed, rank=32, scale=1.0, invocation=invocation
        )
        generator = torch.Generator().manual_seed(seed)
        bs = {}
        for layer in range(weights.config.layers):
            for part in compact.parts:
                out = weights.config.tensor_shapes()[f"layers.{layer}.{part}"][0]
                codes = torch.randint(-127, 128, (out, 32), generator=generator, dtype=torch.int8)
                bs[layer, part] = Int8Rows(codes, torch.full((out,), 1e-5, dtype=torch.bfloat16))
        write_compact(folder / name, compact, bs)


def _models(adapters: Path) -> tuple[ModelConfig, ...]:
    return tuple(
        ModelConfig("smollm2", id=name, slots=4, adapter=str(adapters / name), domains=("trial",))
        for name in SPECIALISTS
    )


def _toml(setting: Setting, adapters: Path, pages: str, trusted: str) -> str:
    models = "".join(
        f'[[models]]\npath = "smollm2"\nid = "{one.id}"\nslots = 4\nadapter = "{one.adapter}"\n'
        'domains = ["trial"]\n'
        for one in _models(adapters)
    )
    return (
        f'[engine]\nprecision = "{setting.precision}"\nthreads = {setting.threads}\n'
        '[network]\nlisten = ["/ip4/127.0.0.1/tcp/0"]\n'
        '[swarm]\nname = "trial"\nnewcomers = "welcome"\n'
        f'[memory]\npages = "{pages}"\n[router]\nencoder = "off"\ntrusted = ["{trusted}"]\n{models}'
    )


_HOME = Path(tempfile.gettempdir()) / "dslm-memory-benchmark"


@contextmanager
def other_host(setting: Setting, pages: str) -> Iterator[There]:
    """A node as a process of its own, behind the link."""
    paths = _paths(_HOME)
    me = load_or_create(paths.identity_file).peer_id
    adapters = _HOME / "adapters"
    make_adapters(adapters, resolve("smollm2", paths.models))
    with (
        _node_process(_toml(setting, adapters, pages, me), paths.models) as node,
        _link(node) as there,
    ):
        yield there


@contextmanager
def _node_process(settings: str, models: Path) -> Iterator[TrialNode]:
    """Its folder stays, with the kernels that were compiled there."""
    home = _HOME / "there"
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(settings, encoding="utf-8")
    api = f"127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "node", "serve", "--home", str(home)]
    command += ["--with-parent", str(os.getpid()), "--set", f"api.listen={api}"]
    log = home / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment() | {"DSLM_MODELS_DIR": str(models)},
        ) as process,
    ):
        node = TrialNode("there", process, Client(f"http://{api}", timeout=60.0), log)
        try:
            _wait_ready(node)
            yield node
        finally:
            process.terminate()


def _wait_ready(node: TrialNode) -> None:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and node.process.poll() is None:
        with suppress(DslmError):
            if node.client.is_answering("/api/v1/state"):
                return
        time.sleep(0.2)
    raise UserError(f"the other node did not start: {node.log.read_text()[-2000:]}")


@contextmanager
def _link(node: TrialNode) -> Iterator[There]:
    address = address_of(node)
    port, peer = address.split("/tcp/")[1].split("/")[0], address.rpartition("/p2p/")[2]
    own = _free_port()
    script = Path(__file__).with_name("memory_link.py")
    command = [
        sys.executable,
        str(script),
        str(own),
        port,
        str(BITS_PER_SECOND),
        str(DELAY_SECONDS),
    ]
    with subprocess.Popen(  # noqa: S603 - our own script
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as link:
        assert link.stdin is not None
        assert link.stdout is not None
        link.stdout.readline()
        yield There(PeerId(peer), f"/ip4/127.0.0.1/tcp/{own}/p2p/{peer}")
        link.stdin.close()


@asynccontextmanager
async def own_host(setting: Setting, there: There | None = None) -> AsyncIterator[Host]:
    """The node of this process; with `there`, connected to it through the link."""
    paths = _paths(_HOME)
    adapters = _HOME / "adapters"
    make_adapters(adapters, resolve("smollm2", paths.models))
    config = NodeConfig(
        paths,
        network=NetworkConfig(
            listen=("/ip4/127.0.0.1/tcp/0",),
            bootstrap=(there.address,) if there else (),
            remember=False,
        ),
        swarm=SwarmConfig(name="trial", newcomers="welcome"),
        engine=EngineConfig(setting.threads, setting.precision),  # type: ignore[arg-type]
        memory=MemoryConfig(),
        router=RouterConfig(encoder="off", trusted=(there.peer,) if there else ()),
        models=_models(adapters),
    )
    config = replace(config, api=replace(config.api, listen=f"127.0.0.1:{_free_port()}"))
    async with running_node(config) as node, asyncio.TaskGroup() as tasks:
        yield Host(node, setting.tokens - 40, tasks)
