"""A swarm of which many cards lie, are stale or dead, and a peer that asks with `auto` even so.

Everything above the ports is real: directory, discovery, coordinator, inspection, outcomes. What is
made up is the encoder, and the evidence: whoever answers a prompt of another domain than its own is
unsure of itself. As a chain does, the asker tries once more with the next card then.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from coordinator.answer import AnswerRequest, Completed, Routed
from coordinator.coordinator import Coordinator, Parts
from coordinator.directory import Directory
from coordinator.discovery import Discovery
from coordinator.inspection import Inspector
from coordinator.reputation import Outcome, Outcomes, Reputation
from coordinator.routing.score import make_prototype
from coordinator.verify import Verifier
from protocols.adapters.memory import Conditions, MemoryNetwork
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.errors import DslmError
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import Sampling, Text
from protocols.records import CapabilityCard
from protocols.signing import Identity
from tests.simulation.fake_node import (
    BASE,
    SWARM,
    Character,
    FakeAnswerer,
    FakeNode,
    Speed,
)

DIMENSIONS = 64
DOMAINS = 8
NOISE = 0.9
"""How far prompts and exemplars lie from their domain's direction: cosine about .74."""
BAD = ("liar", "impostor", "stale", "dead")
"""A `liar` has prototypes of another domain and exemplars of its own. An `impostor`'s exemplars are
of the other domain too, so that only its answers give it away. A `stale` card names what its peer
does not host any more, a `dead` one a peer that is gone."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How many cards of which kind, and what the asker does about them."""

    specialists: int = 40
    bad_share: float = 0.3
    requests: int = 300
    warm_up: int = 50
    """Requests that do not count."""
    pause: float = 1.0
    has_inspection: bool = True
    has_outcomes: bool = True
    has_retry: bool = True


@dataclass(slots=True)
class Tally:
    """What became of the requests after the warm-up, and of those within it."""

    requests: int = 0
    lost: int = 0
    first_lost: int = 0
    """Not answered well by the first specialist that was asked."""
    lost_in_warm_up: int = 0
    lost_to: dict[str, int] = field(default_factory=dict)
    """Of what kind the first choices were that did not answer well."""
    honest_asked: int = 0
    """Different honest specialists that were asked: newcomers have their chance."""


class DomainEncoder:
    """A text `domain/number` lies near to its domain's direction, at a place of its own."""

    digest = "made up"

    def __init__(self, seed: int) -> None:
        self._seed = seed
        axes = np.random.default_rng(seed).normal(size=(DOMAINS, DIMENSIONS))
        self._axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `coordinator.ports.Encoder`."""
        return np.stack([self._encode(text) for text in texts])

    def _encode(self, text: str) -> NDArray[np.float32]:
        domain, _, number = text.partition("/")
        chance = np.random.default_rng([self._seed, int(domain), int(number)])
        noise = chance.normal(size=DIMENSIONS) * NOISE / DIMENSIONS**0.5
        vector = self._axes[int(domain)] + noise
        unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
        return unit


@dataclass(frozen=True, slots=True)
class Made:
    """One specialist: what it is, what it can do, and what its card says."""

    name: str
    kind: str
    domain: int
    prototypes_of: int
    exemplars_of: int


class CardNode(FakeNode):
    """Hosts one specialist, or says so."""

    made: Made
    encoder: DomainEncoder

    def _card(self, name: str, expires: float) -> CapabilityCard:
        card = super()._card(name, expires)
        if name == BASE:
            return card
        made = self.made
        vectors = [self.encoder._encode(text) for text in _texts(made.prototypes_of, name, 4)]
        return replace(
            card,
            encoder=self.encoder.digest,
            prototypes=tuple(map(make_prototype, vectors)),
            exemplars=tuple(_texts(made.exemplars_of, name, 4)),
        )


def _texts(domain: int, name: str, count: int) -> list[str]:
    """Examples of a domain, other ones for each specialist."""
    first = 1_000 + 10 * int(name.partition("-")[2])
    return [f"{domain}/{first + number}" for number in range(count)]


def make(setting: Setting, rng: random.Random) -> list[Made]:
    """Honest and bad specialists, spread over all domains."""
    bad = round(setting.specialists * setting.bad_share)
    made = []
    for number in range(setting.specialists):
        kind = BAD[number % len(BAD)] if number < bad else "honest"
        domain = number % DOMAINS
        other = (domain + rng.randrange(1, DOMAINS)) % DOMAINS
        claimed = other if kind in ("liar", "impostor") else domain
        shown = other if kind == "impostor" else domain
        made.append(Made(f"specialist-{number}", kind, domain, claimed, shown))
    return made


def run_trial(seed: int, setting: Setting) -> Tally:
    """One world from one seed, in virtual time."""
    tally = Tally()
    run_virtual(_live(seed, setting, tally))
    return tally


async def _live(seed: int, setting: Setting, tally: Tally) -> None:
    rng, clock, verifier = random.Random(seed), LoopClock(), Verifier()
    encoder = DomainEncoder(seed)
    conditions = Conditions(delay_min=0.005, delay_max=0.03, replicas=4)
    async with MemoryNetwork(seed, clock, conditions) as network, asyncio.TaskGroup() as group:
        lives = []
        for number, made in enumerate([*make(setting, rng), None]):
            identity = Identity(rng.randbytes(32))
            hosted = (made.name,) if made else (BASE,)
            character = Character(hosted, 3_600.0, Speed(prefill=0.05, token=0.01))
            node = CardNode(identity, network.join(identity), clock, character, number, verifier)
            if made:
                node.made, node.encoder = made, encoder
                if made.kind == "stale":
                    node.answerer = FakeAnswerer((), character.speed)
            life = group.create_task(node.run(lambda _node, _group: None))
            lives.append((life, identity.peer_id, made))
        await asyncio.sleep(12.0)  # they announce twice: first, and when all are there
        for life, peer, made in lives:
            if made and made.kind == "dead":
                network.kill(peer)
                life.cancel()
        asker = Asker(seed, network, clock, encoder, setting)
        asking = group.create_task(asker.live([made for *_, made in lives if made], tally))
        await asyncio.wait([asking])
        for life, *_ in lives:
            life.cancel()


class Asker:
    """The peer that asks; hosts nothing."""

    def __init__(
        self,
        seed: int,
        network: MemoryNetwork,
        clock: LoopClock,
        encoder: DomainEncoder,
        setting: Setting,
    ) -> None:
        self._rng = random.Random(f"asker {seed}")
        identity = Identity(self._rng.randbytes(32))
        self._peer = network.join(identity)
        self._clock, self._encoder, self._setting = clock, encoder, setting
        self._directory = Directory(SWARM, identity.peer_id)
        self._discovery = Discovery(self._directory, self._peer.records, clock, self._rng)
        self._domains: dict[str, tuple[int, str]] = {}
        self._asked_honest: set[str] = set()

    async def live(self, made: Sequence[Made], tally: Tally) -> None:
        """Find the others, then ask."""
        self._domains = {one.name: (one.domain, one.kind) for one in made}
        async with asyncio.TaskGroup() as tasks:
            coordinator = self._coordinator(tasks)
            background = [
                tasks.create_task(self._discovery.run()),
                tasks.create_task(coordinator.reputation.inspector.run()),
            ]
            await asyncio.sleep(5.0)
            for number in range(self._setting.requests):
                await self._one(coordinator, number, tally)
                await asyncio.sleep(self._rng.uniform(0, 2 * self._setting.pause))
            for task in background:
                task.cancel()
        tally.honest_asked = len(self._asked_honest)

    def _coordinator(self, tasks: asyncio.TaskGroup) -> Coordinator:
        setting = self._setting
        coordinator = Coordinator(
            Parts(
                me=self._peer.transport.peer_id,
                directory=self._directory,
                discovery=self._discovery,
                transport=self._peer.transport,
                local=FakeAnswerer((), Speed()),
                encoder=self._encoder,
                clock=self._clock,
                rng=self._rng,
                tasks=tasks,
            )
        )
        if not setting.has_inspection:
            blind = Inspector(None, tuple, self._rng)
            coordinator.reputation = Reputation(Outcomes(), blind, self._clock, self._rng)
        if not setting.has_outcomes:
            inspector = coordinator.reputation.inspector
            forgetful = _Forgetful()
            coordinator.reputation = Reputation(forgetful, inspector, self._clock, self._rng)
        return coordinator

    async def _one(self, coordinator: Coordinator, number: int, tally: Tally) -> None:
        domain = self._rng.randrange(DOMAINS)
        prompt = f"{domain}/{100_000 + number}"
        scores, first = await self._ask(coordinator, "auto", prompt, domain)
        good = self._is_good(first, domain)
        others = [name for name in scores if name != first.removeprefix("!")]
        if not good and self._setting.has_retry and others:
            _, second = await self._ask(coordinator, others[0], prompt, domain)
            good = self._is_good(second, domain)
        if number < self._setting.warm_up:
            tally.lost_in_warm_up += not good
            return
        tally.requests += 1
        tally.lost += not good
        tally.first_lost += not self._is_good(first, domain)
        if not self._is_good(first, domain):
            kind = self._kind_of(first)
            tally.lost_to[kind] = tally.lost_to.get(kind, 0) + 1

    def _kind_of(self, name: str) -> str:
        """Of what kind the card is, with a mark before it if nobody answered."""
        bare = name.removeprefix("!")
        return name.replace(bare, self._domains.get(bare, (0, bare))[1]) if bare else name

    def _is_good(self, name: str, domain: int) -> bool:
        return self._domains.get(name, (None, ""))[0] == domain and not name.startswith("!")

    async def _ask(
        self, coordinator: Coordinator, model: str, prompt: str, domain: int
    ) -> tuple[list[str], str]:
        """The specialists by score, and who answered; with a mark before it if nobody did."""
        request = AnswerRequest(
            RequestId("r"), model, Text(prompt), Sampling(seed=1), max_tokens=2, budget=60.0
        )
        scores: list[str] = []
        asked = ""
        try:
            async for event in coordinator.answer(request):
                match event:
                    case Routed():
                        asked = event.specialist
                        scores = [score.specialist for score in event.scores]
                    case Completed():
                        self._judge(coordinator, event, domain)
        except DslmError:
            return scores, f"!{asked}"
        return scores, asked

    def _judge(self, coordinator: Coordinator, event: Completed, domain: int) -> None:
        if event.specialist == BASE:
            return
        own, kind = self._domains[event.specialist]
        if kind == "honest":
            self._asked_honest.add(event.specialist)
        outcome = Outcome.GOOD if own == domain else Outcome.WEAK
        for share in event.shares:
            coordinator.reputation.report(event.specialist, share.peer, outcome)


class _Forgetful(Outcomes):
    """Learns nothing: what trust is worth."""

    def report(self, specialist: SpecialistId, peer: PeerId, outcome: Outcome, now: float) -> None:
        """Forgotten."""
