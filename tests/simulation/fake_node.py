"""A node without a model, for simulations: announces, discovers, serves deterministic tokens, asks.

Its tokens are a function of prompt, seed and position, so any two nodes continue each other.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TypeVar

from coordinator.answer import Evidence
from coordinator.coordinator import Coordinator, Parts, PlanFunction
from coordinator.directory import Directory
from coordinator.discovery import Discovery
from coordinator.verify import Verifier
from protocols import versions
from protocols.adapters.memory import MemoryPeer
from protocols.ask import ServerAsk, refusal_of
from protocols.codec import FrameDecoder, encode
from protocols.errors import Busy, DslmError, NotHere
from protocols.features import features_of
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.messages.ask import (
    Accepted,
    Ask,
    Cancel,
    ClientMessage,
    Finished,
    Likelihood,
    Likely,
    Progress,
    Prompt,
    ServerMessage,
    Text,
    Tokens,
)
from protocols.messages.info import InfoReply, InfoRequest, Load
from protocols.ports import Clock, Stream
from protocols.records import (
    CapabilityCard,
    IndexRecord,
    NodeRecord,
    domain_key,
    keys_of,
    seal,
    specialist_key,
    swarm_key,
)
from protocols.signing import Identity

MessageT = TypeVar("MessageT")

SWARM = SwarmId("sim")
BASE = "base"
ANNOUNCEMENTS_PER_LIFETIME = 3.0


def token_at(prompt: str, seed: int, position: int) -> int:
    """The one right token."""
    digest = hashlib.sha256(f"{prompt}/{seed}/{position}".encode()).digest()
    return int.from_bytes(digest[:2], "big")


def reference(prompt: str, seed: int, count: int) -> tuple[int, ...]:
    """The one right answer."""
    return tuple(token_at(prompt, seed, position) for position in range(count))


def read(prompt: Prompt) -> str:
    """A prompt as the fake models see it."""
    if isinstance(prompt, Text):
        return prompt.text
    return "\n".join(f"{message.role}: {message.content}" for message in prompt.messages)


def text_of(ids: tuple[int, ...]) -> str:
    """What the ids read as."""
    return "".join(f" {token}" for token in ids)


def digest_of(specialist: str) -> str:
    """The weights that all nodes have under this name."""
    return hashlib.sha256(specialist.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of prefill and per token, and how many answers run at once."""

    prefill: float = 0.1
    token: float = 0.03
    slots: int = 8


@dataclass(frozen=True, slots=True)
class Character:
    """What a node hosts, and how long (in seconds) its records live."""

    hosted: tuple[str, ...]
    lifetime: float = 60.0
    speed: Speed = Speed()


class FakeAnswerer:
    """Answers for one node, with `Busy` when its slots are taken."""

    def __init__(self, hosted: tuple[str, ...], speed: Speed) -> None:
        self._hosted = hosted
        self.speed = speed
        self.running = 0
        self.asked = 0
        self.asks: list[Ask] = []
        """The conversations that it was asked to go on with."""
        self.logprobs: dict[str, float] = {}
        """How sure its specialists are of each token, in nats; -0.2 unless said otherwise."""
        self.unknown: frozenset[str] = frozenset()
        """Features that its version does not know."""
        self.given: list[Ask] = []
        """The answers about which its base was asked."""

    async def answer(self, ask: Ask) -> AsyncGenerator[ServerMessage, None]:
        """See `coordinator.ports.Answerer`."""
        self.asked += 1
        if ask.specialist not in self._hosted:
            raise NotHere("no such specialist here")
        if self.running >= self.speed.slots:
            raise Busy("full", retry_after=0.5)
        self.running += 1
        try:
            async for message in self._generate(ask):
                yield message
        finally:
            self.running -= 1

    async def _generate(self, ask: Ask) -> AsyncGenerator[ServerMessage, None]:
        known = tuple(one for one in features_of(ask) if one not in self.unknown)
        if ask.forced:
            self.given.append(ask)
        elif not isinstance(ask.prompt, Text):
            self.asks.append(ask)
        name = BASE if ask.on_base else ask.specialist
        yield Accepted(1, 4_096, digest_of(name), known)
        yield Progress("prefill")
        await asyncio.sleep(self.speed.prefill)
        if ask.forced:
            found = Likelihood(self.logprobs.get(name, -0.2), b"t")
            for position, token in enumerate(ask.forced):
                yield Tokens(position, (token,), f" {token}", (found,))
            yield Finished("length", "", 1, len(ask.forced))
            return
        for position in range(len(ask.delivered), ask.max_tokens):
            await asyncio.sleep(self.speed.token)
            token = token_at(read(ask.prompt), ask.sampling.seed, position)
            yield Tokens(position, (token,), f" {token}", self._likelihood(ask, token))
        yield Finished("length", "", 1, ask.max_tokens)

    def _likelihood(self, ask: Ask, token: int) -> tuple[Likelihood, ...]:
        if ask.sampling.logprobs is None:
            return ()
        sure = self.logprobs.get(ask.specialist, -0.2)
        top = (Likely(token, sure, b"t"), Likely(token + 1, sure - 1.0, b"u"))
        return (Likelihood(sure, b"t", top[: ask.sampling.logprobs]),)


class FakeNode:
    """Everything that a node has but the model and the gateway."""

    def __init__(
        self,
        identity: Identity,
        peer: MemoryPeer,
        clock: Clock,
        character: Character,
        seed: int,
        verifier: Verifier | None = None,
    ) -> None:
        self.identity = identity
        self.peer = peer
        self.hosted = character.hosted
        self.answerer = FakeAnswerer(character.hosted, character.speed)
        self._lifetime = character.lifetime
        self.directory = Directory(SWARM, identity.peer_id, verifier)
        self.clock = clock
        self._rng = random.Random(f"{seed}/{identity.peer_id}")
        self.discovery = Discovery(self.directory, peer.records, clock, self._rng)
        self._sequence = 0
        self.coordinator: Coordinator
        self.trusted: set[PeerId] = set()
        """Whom its coordinator takes as trusted."""
        self.asks_base = False
        """Whether its coordinator asks the base about answers; set it before `run`."""
        self.make_plan: PlanFunction | None = None
        """Instead of the router's; set it before `run`."""
        self.judged: list[tuple[SpecialistId, PeerId, Evidence]] = []

    async def run(self, ready: Callable[["FakeNode", asyncio.TaskGroup], None]) -> None:
        """Live until cancelled; `ready` is called once with the task group of the node's tasks."""
        await self.peer.transport.serve(versions.ASK, self.serve_ask)
        await self.peer.transport.serve(versions.INFO, self.serve_info)
        async with asyncio.TaskGroup() as tasks:
            parts = Parts(
                me=self.identity.peer_id,
                directory=self.directory,
                discovery=self.discovery,
                transport=self.peer.transport,
                local=self.answerer,
                encoder=None,
                clock=self.clock,
                rng=self._rng,
                tasks=tasks,
                is_trusted=lambda peer: peer in self.trusted,
                make_plan=self.make_plan,
                asks_base=self.asks_base,
                judge=lambda *verdict: self.judged.append(verdict),
            )
            self.coordinator = Coordinator(parts)
            tasks.create_task(self._announce_for_ever())
            tasks.create_task(self.discovery.run())
            ready(self, tasks)

    async def _announce_for_ever(self) -> None:
        pause = 5.0  # again soon: peers that joined meanwhile may stand nearer to our keys
        while True:
            try:
                await self.announce()
            except DslmError:
                return  # killed
            await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))
            pause = self._lifetime / ANNOUNCEMENTS_PER_LIFETIME

    async def announce(self) -> None:
        """Publish all records of this node once."""
        self._sequence += 1
        me, expires = self.identity.peer_id, self.clock.now() + self._lifetime
        node = NodeRecord(
            peer=me,
            swarm=SWARM,
            sequence=self._sequence,
            expires_at=expires,
            addresses=self.peer.transport.addresses(),
            software=versions.SOFTWARE,
            protocols=versions.ALL,
            specialists=self.hosted,
        )
        records: list[NodeRecord | CapabilityCard | IndexRecord] = [node]
        keys = [swarm_key(SWARM)]
        for name in self.hosted:
            records.append(self._card(name, expires))
            keys += [specialist_key(SWARM, SpecialistId(name)), domain_key(SWARM, f"of-{name}")]
        records += [IndexRecord(me, key, self._sequence, expires, self.hosted) for key in keys]
        for record in records:
            data = seal(record, self.identity)
            key = keys_of(record)[0]
            self.directory.offer(data, key, me, self.clock.now())
            await self.peer.records.put(key, me, data, expires)

    def _card(self, name: str, expires: float) -> CapabilityCard:
        return CapabilityCard(
            peer=self.identity.peer_id,
            swarm=SWARM,
            sequence=self._sequence,
            expires_at=expires,
            specialist=name,
            model_digest=digest_of(name),
            base="fake",
            precision="fp32",
            context_length=4_096,
            domains=() if name == BASE else (f"of-{name}",),
            parameters=1_000 if name == BASE else 1_010,
            adapter="" if name == BASE else digest_of(f"adapter {name}"),
            base_digest="" if name == BASE else digest_of(BASE),
            is_activated=name.startswith("activated"),
        )

    async def serve_ask(self, stream: Stream) -> None:
        """The serving end of `/dslm/ask/1`."""
        conversation = ServerAsk()
        decoder: FrameDecoder[ClientMessage] = FrameDecoder(ClientMessage)
        ask: Ask | None = None
        while ask is None:
            for message in await _receive(stream, decoder):
                received = conversation.receive(message)
                ask = received if isinstance(received, Ask) else ask
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send_answer(stream, ask))
                watching = group.create_task(_watch(stream, decoder, conversation, sending))
                sending.add_done_callback(lambda _: watching.cancel())
        except* DslmError as errors:
            raise errors.exceptions[0] from None

    async def _send_answer(self, stream: Stream, ask: Ask) -> None:
        try:
            async for message in self.answerer.answer(ask):
                await stream.send(encode(message))
        except (Busy, NotHere) as error:
            await stream.send(encode(refusal_of(error)))

    async def serve_info(self, stream: Stream) -> None:
        """The serving end of `/dslm/info/1`."""
        decoder: FrameDecoder[InfoRequest] = FrameDecoder(InfoRequest)
        (request, *_) = await _receive(stream, decoder)
        reply = InfoReply(
            nonce=request.nonce,
            software=versions.SOFTWARE,
            swarm=SWARM,
            protocols=versions.ALL,
            specialists=self.hosted,
            load=Load(),
            clock=self.clock.now(),
        )
        await stream.send(encode(reply))


async def _receive(stream: Stream, decoder: FrameDecoder[MessageT]) -> list[MessageT]:
    """The next messages, at least one."""
    while True:
        data = await stream.receive()
        if not data:
            raise NotHere("the client left")
        if frames := decoder.feed(data):
            return [frame.message for frame in frames]


async def _watch(
    stream: Stream,
    decoder: FrameDecoder[ClientMessage],
    conversation: ServerAsk,
    sending: "asyncio.Task[None]",
) -> None:
    """Stop the answer when the client cancels or leaves."""
    try:
        while True:
            for message in await _receive(stream, decoder):
                if isinstance(conversation.receive(message), Cancel):
                    return
    finally:
        sending.cancel()
