"""Looking for cards that are not kept: only when needed, within its time, by name and by card."""

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.card_shelf import CardShelf
from coordinator.directory import Directory
from coordinator.discovery import Discovery
from coordinator.domain_search import DomainSearch, SearchSettings, nearest_cosines
from coordinator.routing.score import card_score, make_prototype
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.errors import Unsupported
from protocols.ids import PeerId, SwarmId
from protocols.ports import StoredValue
from protocols.records import CapabilityCard, IndexRecord, Prototype, keys_of, seal, swarm_key
from protocols.signing import Identity

SWARM = SwarmId("s")
ALICE = Identity(bytes([1]) * 32)
EPOCH = 1_700_000_000.0
WORDS = ("law", "tax", "cooking", "bread")


class WordEncoder:
    digest = "e"

    def __init__(self) -> None:
        self.encoded: list[str] = []

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += texts
        rows = [[float(word in text) for word in WORDS] + [0.3] for text in texts]
        found = np.array(rows, dtype=np.float32)
        unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit


class Store:
    """Knows nothing, slowly."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.reads: list[str] = []

    async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
        raise NotImplementedError

    async def get(self, key: str) -> dict[str, StoredValue]:
        self.reads.append(key.removeprefix("dslm/1/s/"))
        await asyncio.sleep(self.seconds)
        return {}


class Scene:
    """A directory with an index of Alice's domains; `partial` if it had no room for a card."""

    def __init__(self, store: Store, *, is_partial: bool = True) -> None:
        clock = LoopClock(EPOCH)
        shelf = CardShelf(PeerId("me"), cards_max=0 if is_partial else 9)
        self.directory = Directory(SWARM, PeerId("me"), shelf=shelf)
        self.encoder = WordEncoder()
        discovery = Discovery(self.directory, store, clock, random.Random(1))
        settings = SearchSettings(beam=1)
        self.search = DomainSearch(self.directory, discovery, self.encoder, clock, settings)
        index = IndexRecord(
            ALICE.peer_id, swarm_key(SWARM), 1, EPOCH + 60, (), ("cooking", "law", "sport")
        )
        self.offer(index)
        self.offer(card())

    def offer(self, record: IndexRecord | CapabilityCard) -> None:
        self.directory.offer(seal(record, ALICE), keys_of(record)[0], ALICE.peer_id, EPOCH)


def card() -> CapabilityCard:
    vector = np.array([0, 0, 1, 1, 0], dtype=np.float32)
    return CapabilityCard(
        *(ALICE.peer_id, SWARM, 1, EPOCH + 60, "baker", "d", "b", "fp32", 9),
        domains=("cooking/bread",),
        encoder="e",
        prototypes=(make_prototype(vector),),
    )


def test_a_domain_whose_name_cannot_be_encoded_costs_the_others_nothing() -> None:
    class Choking(WordEncoder):
        async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if any("sport" in text for text in texts):
                raise Unsupported("a panic, contained")
            return await super().encode(texts)

    scene = Scene(Store())
    scene.search._encoder = Choking()

    assert run_virtual(scene.search.look("my tax and the law")) == ("law",)


def test_the_nearest_domain_is_looked_up_by_its_name() -> None:
    store = Store()

    async def main() -> None:
        scene = Scene(store)
        assert await scene.search.look("a question of law") == ("law",)
        assert await scene.search.look("how to cook; cooking") == ("cooking",)
        # Names are encoded once.
        assert scene.encoder.encoded.count("law") == 1

    run_virtual(main())
    assert store.reads == ["domain/law", "domain/cooking"]


def test_nothing_is_asked_when_all_cards_are_kept_or_one_is_near() -> None:
    store = Store()

    async def main() -> None:
        whole = Scene(store, is_partial=False)
        assert await whole.search.look("law") == ()
        assert whole.encoder.encoded == []
        partial = Scene(store)
        assert await partial.search.look("") == ()
        key = keys_of(card())[0]
        data = seal(card(), ALICE)
        shelf_is_full = partial.directory.is_partial(EPOCH)
        assert shelf_is_full
        partial.directory._shelf._cards_max = 1
        partial.directory.offer(data, key, ALICE.peer_id, EPOCH, is_wanted=True)
        partial.directory._shelf._passed_over["x", "y"] = EPOCH + 60
        assert await partial.search.look("cooking bread") == ()

    run_virtual(main())
    assert store.reads == []


def test_a_slow_network_is_waited_for_two_seconds() -> None:
    store = Store(seconds=60.0)

    async def main() -> None:
        began = asyncio.get_running_loop().time()
        await Scene(store).search.look("law")
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)

    run_virtual(main())


def test_all_cosines_at_once_are_those_of_each_card() -> None:
    rng = np.random.default_rng(1)
    prompt = rng.normal(size=16).astype(np.float32)
    prompt /= np.linalg.norm(prompt)
    cards = [
        CapabilityCard(
            *("p", "s", 1, 1, str(count), "", "", "", 9),
            prototypes=tuple(
                make_prototype(rng.normal(size=16).astype(np.float32)) for _ in range(count)
            ),
        )
        for count in (1, 3, 8, 2)
    ]
    zero = CapabilityCard(
        *("p", "s", 1, 1, "z", "", "", "", 9), prototypes=(Prototype(b"\0" * 16, 1),)
    )
    cards.append(zero)
    expected = [card_score(prompt, one) for one in cards]
    assert nearest_cosines(prompt, cards) == pytest.approx(expected, abs=1e-5)
    assert len(nearest_cosines(prompt, [])) == 0
