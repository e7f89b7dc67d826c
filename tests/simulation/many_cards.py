"""Thousands of cards in a tree of domains on the memory network, and a peer that keeps a few.

Domains have three levels; prompts, cards and names of domains lie near to the direction of their
leaf, which lies near to that of the level above. To be run in virtual time: the pauses are.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.answer import AUTO, AnswerRequest, Completed
from coordinator.card_shelf import CardShelf
from coordinator.coordinator import Coordinator, Parts
from coordinator.directory import Directory
from coordinator.discovery import Discovery, DiscoverySettings
from coordinator.domain_search import DomainSearch, SearchSettings
from coordinator.routing.score import make_prototype, rank_cards
from coordinator.verify import Verifier
from node.announcer import Offer, records_of
from protocols import versions
from protocols.adapters.memory import Conditions, MemoryNetwork, MemoryPeer
from protocols.adapters.virtual import LoopClock
from protocols.ids import PeerId, RequestId, SwarmId
from protocols.messages.ask import Sampling, Text
from protocols.ports import StoredValue
from protocols.records import CapabilityCard, NodeRecord, seal
from protocols.signing import Identity
from tests.simulation.fake_node import Character, FakeAnswerer, FakeNode, Speed, digest_of

SWARM = SwarmId("sim")
DIMENSIONS = 96
WEAK = 0.7
"""Between the cosine with a card of the same leaf, .82, and of its neighbour, .55."""


@dataclass(frozen=True, slots=True)
class Tree:
    """How many domains there are, cards in each, and cards that the reader keeps."""

    tops: int = 10
    middles: int = 10
    leaves: int = 5
    cards: int = 10
    peers: int = 100
    kept: int = 300

    def domains(self) -> list[str]:
        """All leaves."""
        return [
            f"top{top}/middle{top}x{middle}/leaf{top}x{middle}x{leaf}"
            for top in range(self.tops)
            for middle in range(self.middles)
            for leaf in range(self.leaves)
        ]


class TreeEncoder:
    """Words of a text to the sum of their directions; what follows `#` is noise."""

    digest = "tree"

    def __init__(self) -> None:
        self.encoded = 0

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `coordinator.ports.Encoder`."""
        self.encoded += len(texts)
        return np.stack([self.direction(text) for text in texts])

    def direction(self, text: str) -> NDArray[np.float32]:
        """The first word weighs as much as each below it."""
        words, _, noise = text.partition("#")
        parts = [_word(word) for word in words.replace("/", " ").split()]
        total = np.sum(parts, axis=0) + (0.8 * _word(f"noise {noise}") if noise else 0)
        unit: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
        return unit


def _word(word: str) -> NDArray[np.float64]:
    seed = int.from_bytes(word.encode()[-12:], "big")
    vector = np.random.default_rng([seed, len(word)]).normal(size=DIMENSIONS)
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit


class Reader:
    """The peer that cannot keep all cards."""

    def __init__(self, peer: MemoryPeer, clock: LoopClock, encoder: TreeEncoder, kept: int) -> None:
        me = peer.transport.peer_id
        self.shelf = CardShelf(me, cards_max=kept)
        self.directory = Directory(SWARM, me, Verifier(100_000), shelf=self.shelf)
        self.store = _Counted(peer)
        rng = random.Random(1)
        settings = DiscoverySettings(lookups_at_once=32)
        self.discovery = Discovery(self.directory, self.store, clock, rng, settings)
        search = SearchSettings(weak=WEAK)
        self.search = DomainSearch(self.directory, self.discovery, encoder, clock, search)
        self._clock, self._encoder, self._peer = clock, encoder, peer

    def coordinator(self, tasks: asyncio.TaskGroup) -> Coordinator:
        """As a node has it, with a search of its own."""
        return Coordinator(
            Parts(
                me=self._peer.transport.peer_id,
                directory=self.directory,
                discovery=self.discovery,
                transport=self._peer.transport,
                local=FakeAnswerer((), Speed()),
                encoder=self._encoder,
                clock=self._clock,
                rng=random.Random(4),
                tasks=tasks,
            )
        )

    def best(self, prompt: str) -> str:
        """The nearest specialist that is known."""
        vector = self._encoder.direction(prompt)
        cards = self.directory.cards(self._clock.now())
        return rank_cards(vector, cards, self._encoder.digest)[0].specialist


class _Counted:
    """The record store, and how often it was read."""

    def __init__(self, peer: MemoryPeer) -> None:
        self._records = peer.records
        self.reads = 0

    async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
        return await self._records.put(key, subkey, value, expires_at)

    async def get(self, key: str) -> "dict[str, StoredValue]":
        self.reads += 1
        return dict(await self._records.get(key))


async def publish(network: MemoryNetwork, tree: Tree, encoder: TreeEncoder, now: float) -> None:
    """All cards, spread over the peers, as `node.announcer` publishes them; each can be asked."""
    names = [(domain, number) for domain in tree.domains() for number in range(tree.cards)]
    random.Random(2).shuffle(names)
    identities = [Identity(random.Random(number).randbytes(32)) for number in range(tree.peers)]
    peers = [network.join(identity) for identity in identities]
    for number, (identity, peer) in enumerate(zip(identities, peers, strict=True)):
        cards = [
            _card(identity.peer_id, domain, copy, encoder)
            for domain, copy in names[number :: tree.peers]
        ]
        node = NodeRecord(
            identity.peer_id,
            SWARM,
            0,
            0.0,
            peer.transport.addresses(),
            "0.1.0",
            (),
            tuple(card.specialist for card in cards),
        )
        for key, record in records_of(Offer(node, cards), 1, now + 3_000.0):
            if "/specialist/" in key:  # nobody asks by name here
                continue
            sealed = seal(record, identity)
            await peer.records.put(key, identity.peer_id, sealed, now + 3_000.0)
        character = Character(node.specialists, 3_000.0, Speed(prefill=0.01, token=0.01))
        host = FakeNode(identity, peer, LoopClock(), character, number)
        await peer.transport.serve(versions.ASK, host.serve_ask)


def _card(peer: PeerId, domain: str, copy: int, encoder: TreeEncoder) -> CapabilityCard:
    name = f"{domain.rpartition('/')[2]}-{copy}"
    prototypes = (make_prototype(encoder.direction(f"{domain}#{name}")),)
    return CapabilityCard(
        *(peer, SWARM, 0, 0.0, name, digest_of(name), "b", "fp32", 4_096, (domain,)),
        encoder=encoder.digest,
        prototypes=prototypes,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """Of so many prompts whose domain is not kept, how many found a specialist of it."""

    prompts: int
    found_before: int
    found: int
    reads: float
    """Of the record store for each search."""
    encodings: float


async def find_all(tree: Tree, prompts: int) -> Found:
    """Publish, discover, then search for prompts of domains that are not kept."""
    clock, encoder = LoopClock(), TreeEncoder()
    conditions = Conditions(delay_min=0.001, delay_max=0.01, replicas=3)
    async with MemoryNetwork(3, clock, conditions) as network:
        await publish(network, tree, encoder, clock.now())
        mine = network.join(Identity(b"r" * 32))
        reader = Reader(mine, clock, encoder, tree.kept)
        await reader.discovery.refresh()
        assert len(reader.shelf) == tree.kept
        reads = reader.store.reads
        await reader.discovery.refresh()
        # A second round reads the index, not the thousands of cards that there was no room for.
        assert reader.store.reads - reads < 10
        return await _search(reader, encoder, tree, prompts)


async def _search(reader: Reader, encoder: TreeEncoder, tree: Tree, prompts: int) -> Found:
    now = LoopClock().now()
    kept = {card.domains[0] for card in reader.directory.cards(now)}
    missing = [domain for domain in tree.domains() if domain not in kept]
    chance = random.Random(5)
    before = found = reads = encodings = 0
    for number in range(prompts):
        domain = chance.choice(missing)
        prompt, leaf = f"{domain}#prompt {number}", domain.rpartition("/")[2]
        before += reader.best(prompt).startswith(f"{leaf}-")
        start, start_encoded = reader.store.reads, encoder.encoded
        await reader.search.look(prompt)
        reads += reader.store.reads - start
        encodings += encoder.encoded - start_encoded
        found += reader.best(prompt).startswith(f"{leaf}-")
        assert len(reader.shelf) <= tree.kept
        await asyncio.sleep(4.0)
    known = reader.directory.cards(now)[0]
    start = reader.store.reads
    assert await reader.search.look(f"{known.domains[0]}#prompt") == ()
    assert reader.store.reads == start  # what is near is not looked for
    return Found(prompts, before, found, reads / prompts, encodings / prompts)


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answered a prompt, and whether a card of its domain was kept when it came."""

    domain: str
    specialist: str
    was_kept: bool


async def ask_all(tree: Tree, prompts: int) -> list[Answered]:
    """Publish, discover, then ask with `auto` about domains of which no card is kept."""
    clock, encoder = LoopClock(), TreeEncoder()
    conditions = Conditions(delay_min=0.001, delay_max=0.01, replicas=3)
    answered = []
    async with MemoryNetwork(3, clock, conditions) as network, asyncio.TaskGroup() as tasks:
        await publish(network, tree, encoder, clock.now())
        reader = Reader(network.join(Identity(b"r" * 32)), clock, encoder, tree.kept)
        await reader.discovery.refresh()
        coordinator = reader.coordinator(tasks)
        kept = {card.domains[0] for card in reader.directory.cards(clock.now())}
        missing = [domain for domain in tree.domains() if domain not in kept]
        for number, domain in enumerate(random.Random(6).sample(missing, prompts)):
            known = {card.domains[0] for card in reader.directory.cards(clock.now())}
            specialist = await _ask(coordinator, f"{domain}#prompt {number}")
            answered.append(Answered(domain, specialist, domain in known))
            assert len(reader.shelf) <= tree.kept
            await asyncio.sleep(4.0)  # one place is not looked up twice within seconds
    return answered


async def _ask(coordinator: Coordinator, prompt: str) -> str:
    """The specialist that answered."""
    request = AnswerRequest(
        RequestId("r"), AUTO, Text(prompt), Sampling(seed=1), max_tokens=2, budget=30.0
    )
    ended = [event async for event in coordinator.answer(request) if isinstance(event, Completed)]
    return ended[0].specialist
