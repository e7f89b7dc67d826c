"""A swarm of fake nodes in virtual time, the requests they send, and what goes wrong meanwhile.

Everything is drawn from one seed; the trace of two runs with one seed is the same.
"""

import asyncio
import hashlib
import random
from dataclasses import dataclass, field

from coordinator.answer import AnswerRequest, Completed, Delta, Resumed
from coordinator.verify import Verifier
from protocols.adapters.memory import Conditions, MemoryNetwork
from protocols.adapters.virtual import LoopClock
from protocols.errors import DslmError
from protocols.ids import PeerId, RequestId
from protocols.messages.ask import Sampling, Text
from protocols.signing import Identity
from tests.simulation.fake_node import Character, FakeNode

BUDGET = 60.0
ASKER_DIED = "the asking peer died"


@dataclass(frozen=True, slots=True)
class Plan:
    """How big and how bad the world is. Times are virtual seconds from the start."""

    peers: int = 200
    specialists: int = 10
    requests: int = 200
    deaths: int = 45
    """Peers that are struck: `frozen` of them stand still for a while, the others are killed."""
    frozen: int = 5
    settle: float = 6.0
    """Requests begin after this time, and trouble with them."""
    trouble: float = 20.0
    """For this long requests begin, peers die, the network is cut."""
    afterwards: float = 20.0
    """How long the survivors live on when all requests have ended."""
    lifetime: float = 120.0
    """Of records."""
    cuts: tuple[tuple[float, float], ...] = ((3.0, 8.0), (15.0, 3.0))
    """When the network is cut in two, counted from `settle`, and for how long."""
    conditions: Conditions = field(
        default_factory=lambda: Conditions(
            delay_min=0.005,
            delay_max=0.08,
            dial_loss=0.02,
            stream_loss=0.02,
            dead_after=20.0,
            replicas=4,
        )
    )


@dataclass(slots=True)
class Outcome:
    """How one request went. `ends` counts its endings: it must be 1."""

    request: AnswerRequest
    began: float = 0.0
    took: float = 0.0
    ids: tuple[int, ...] = ()
    text: str = ""
    resumed: int = 0
    ends: int = 0
    error: str = ""
    completed: Completed | None = None


class World:
    """Make it inside a virtual loop, then `live`."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self._seed = seed
        self._plan = plan
        self._rng = random.Random(seed)
        self._clock = LoopClock()
        self._verifier = Verifier(100_000)
        self.network = MemoryNetwork(seed, self._clock, plan.conditions)
        self.nodes: dict[PeerId, FakeNode] = {}
        self._lives: dict[PeerId, asyncio.Task[None]] = {}
        self._groups: dict[PeerId, asyncio.TaskGroup] = {}
        self.outcomes: list[Outcome] = []
        self._trace = hashlib.sha256()
        self.survivors: set[PeerId] = set()
        self.known: dict[PeerId, set[PeerId]] = {}
        """At the end: whom each survivor knows."""

    def trace(self) -> str:
        """A hash of everything that was noted, in its order and with its times."""
        return self._trace.hexdigest()

    async def live(self) -> None:
        """From the first join to the last ending."""
        plan = self._plan
        async with self.network, asyncio.TaskGroup() as group:
            for _ in range(plan.peers):
                self._join(group)
                await asyncio.sleep(self._rng.uniform(0, 0.02))
            await asyncio.sleep(plan.settle)
            async with asyncio.TaskGroup() as troubles:
                for at, duration in plan.cuts:
                    troubles.create_task(self._cut(at, duration))
                for number, peer in enumerate(self._rng.sample(list(self.nodes), plan.deaths)):
                    trouble = self._freeze if number < plan.frozen else self._die
                    troubles.create_task(trouble(peer, self._rng.uniform(0, plan.trouble)))
                for number in range(plan.requests):
                    troubles.create_task(self._ask(number, self._rng.uniform(0, plan.trouble)))
            await self._wait_ended()
            await asyncio.sleep(plan.afterwards)
            now = self._clock.now()
            self.survivors = set(self._lives)
            self.known = {
                peer: {PeerId(node.peer) for node in self.nodes[peer].directory.nodes(now)}
                for peer in self._lives
            }
            for life in self._lives.values():
                life.cancel()

    def _join(self, group: asyncio.TaskGroup) -> None:
        identity = Identity(self._rng.randbytes(32))
        me = identity.peer_id
        hosted = (f"specialist-{len(self.nodes) % self._plan.specialists}",)
        character = Character(hosted, self._plan.lifetime)
        peer = self.network.join(identity)
        node = FakeNode(identity, peer, self._clock, character, self._seed, self._verifier)
        self.nodes[me] = node
        self._lives[me] = group.create_task(node.run(self._started))

    def _started(self, node: FakeNode, group: asyncio.TaskGroup) -> None:
        self._groups[node.identity.peer_id] = group

    async def _wait_ended(self) -> None:
        """Until all requests have ended, or could have twice over."""
        for _ in range(int(2 * BUDGET)):
            if all(outcome.ends for outcome in self.outcomes):
                return
            await asyncio.sleep(1.0)

    async def _die(self, peer: PeerId, at: float) -> None:
        await asyncio.sleep(at)
        self._note(f"kill {peer}")
        self.network.kill(peer)
        self._lives.pop(peer).cancel()

    async def _freeze(self, peer: PeerId, at: float) -> None:
        await asyncio.sleep(at)
        self._note(f"freeze {peer}")
        self.network.freeze(peer)
        await asyncio.sleep(10.0)
        self.network.thaw(peer)

    async def _cut(self, at: float, duration: float) -> None:
        await asyncio.sleep(at)
        peers = self._rng.sample(self.network.peers(), len(self.network.peers()) // 2)
        self._note("cut")
        self.network.partition(peers)
        await asyncio.sleep(duration)
        self._note("heal")
        self.network.heal()

    async def _ask(self, number: int, at: float) -> None:
        await asyncio.sleep(at)
        peer = self._rng.choice(list(self._lives))
        request = AnswerRequest(
            request_id=RequestId(f"r{number}"),
            model=f"specialist-{self._rng.randrange(self._plan.specialists)}",
            prompt=Text(f"prompt {number}"),
            sampling=Sampling(seed=number),
            max_tokens=self._rng.randint(1, 60),
            budget=BUDGET,
        )
        outcome = Outcome(request, began=self._clock.monotonic())
        self.outcomes.append(outcome)
        self._groups[peer].create_task(self._follow(self.nodes[peer], outcome))

    async def _follow(self, node: FakeNode, outcome: Outcome) -> None:
        try:
            async for event in node.coordinator.answer(outcome.request):
                self._note(f"{outcome.request.request_id} {event!r}")
                match event:
                    case Delta(position=position, ids=ids, text=text):
                        assert position == len(outcome.ids), "a gap or a repeat"
                        outcome.ids += ids
                        outcome.text += text
                    case Resumed():
                        outcome.resumed += 1
                    case Completed():
                        outcome.ends += 1
                        outcome.completed = event
        except DslmError as error:
            outcome.ends += 1
            outcome.error = f"{error.code}: {error}"
        except asyncio.CancelledError:
            outcome.ends += 1
            outcome.error = ASKER_DIED
            raise
        finally:
            outcome.took = self._clock.monotonic() - outcome.began
            self._note(f"{outcome.request.request_id} over {outcome.error}")

    def _note(self, what: str) -> None:
        self._trace.update(f"{self._clock.monotonic():.9f} {what}\n".encode())
