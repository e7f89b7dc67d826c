"""Discovery: quick at first, then at leisure; targeted; not stopped by a failing store."""

import asyncio
import random
from collections.abc import Mapping
from itertools import pairwise

import pytest

from coordinator.card_shelf import CardShelf
from coordinator.directory import Directory
from coordinator.discovery import Discovery
from coordinator.verify import Verifier
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.errors import TransportDown
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.ports import StoredValue
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

SWARM = SwarmId("public")
ME = Identity(bytes(32)).peer_id
ALICE = Identity(bytes([1]) * 32)
EPOCH = 1_700_000_000.0
VERIFIER = Verifier()


class Store:
    """A record store on a table; keys in `broken` fail. Notes when which key was read."""

    def __init__(self) -> None:
        self.table: dict[str, dict[str, StoredValue]] = {}
        self.broken: set[str] = set()
        self.reads: list[tuple[float, str]] = []
        self.clock = LoopClock(EPOCH)

    async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
        self.table.setdefault(key, {})[subkey] = StoredValue(value, expires_at)
        return True

    async def get(self, key: str) -> Mapping[str, StoredValue]:
        self.reads.append((self.clock.monotonic(), key))
        if key in self.broken:
            raise TransportDown("down")
        return self.table.get(key, {})

    def publish(self, expires: float = EPOCH + 600, index: str = swarm_key(SWARM)) -> None:
        peer = ALICE.peer_id
        for record in (
            NodeRecord(peer, SWARM, 1, expires, (), "0.1.0", (), ("law",)),
            CapabilityCard(peer, SWARM, 1, expires, "law", "d", "b", "fp32", 9, ("legal",)),
            IndexRecord(peer, index, 1, expires, ("law",)),
        ):
            self.table.setdefault(keys_of(record)[0], {})[peer] = StoredValue(
                seal(record, ALICE), expires
            )


def make(store: Store) -> tuple[Directory, Discovery]:
    directory = Directory(SWARM, ME, VERIFIER)
    return directory, Discovery(directory, store, store.clock, random.Random(1))


def rounds(store: Store) -> list[float]:
    return [at for at, key in store.reads if key == swarm_key(SWARM)]


def test_rounds_are_quick_until_somebody_is_found_then_rare() -> None:
    store = Store()

    async def main() -> None:
        _, discovery = make(store)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(discovery.run())
            await asyncio.sleep(3.0)
            store.publish()
            await asyncio.sleep(100.0)
            task.cancel()

    run_virtual(main())
    times = rounds(store)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    for pause, nominal in zip(pauses[:5], (0.3, 0.6, 1.2, 2.4, 4.8), strict=True):
        assert pause == pytest.approx(nominal, rel=0.26)
    assert all(11.2 <= pause <= 18.8 for pause in pauses[5:])
    assert len({round(pause, 6) for pause in pauses[5:]}) > 1  # jitter


def test_what_is_held_and_lives_is_not_read_again() -> None:
    async def main() -> None:
        store = Store()
        store.publish()
        directory, discovery = make(store)
        refreshed = await discovery.refresh()
        assert (refreshed.peers, refreshed.lookups, refreshed.failed) == (1, 3, 0)
        assert directory.specialists(EPOCH) == ("law",)
        assert (await discovery.refresh()).lookups == 1

    run_virtual(main())


def test_what_expires_soon_is_read_again() -> None:
    async def main() -> None:
        store = Store()
        store.publish(expires=EPOCH + 20)
        _, discovery = make(store)
        await discovery.refresh()
        assert (await discovery.refresh()).lookups == 3

    run_virtual(main())


def test_a_failing_lookup_stops_nothing() -> None:
    async def main() -> None:
        store = Store()
        store.publish()
        store.broken = {key for key in store.table if "/node/" in key}
        directory, discovery = make(store)
        refreshed = await discovery.refresh()
        assert refreshed.failed == 1
        assert directory.specialists(EPOCH) == ("law",)
        store.broken = set(store.table)
        assert (await discovery.refresh()).failed == 1  # the index itself

    run_virtual(main())


def test_rubbish_and_forgeries_are_passed_over() -> None:
    async def main() -> None:
        store = Store()
        store.publish()
        index = store.table[swarm_key(SWARM)]
        genuine = index[ALICE.peer_id]
        index["nobody"] = StoredValue(b"rubbish", EPOCH + 60)
        index[ME] = genuine
        directory, discovery = make(store)
        assert (await discovery.refresh()).peers == 1
        assert directory.statistics(EPOCH).refused == 2

    run_virtual(main())


@pytest.mark.parametrize("kind", ["specialist", "domain"])
def test_targeted_lookups_find_what_the_swarm_index_does_not(kind: str) -> None:
    async def main() -> None:
        store = Store()
        is_specialist = kind == "specialist"
        name = SpecialistId("law")
        key = specialist_key(SWARM, name) if is_specialist else domain_key(SWARM, "legal")
        store.publish(index=key)
        directory, discovery = make(store)
        assert (await discovery.refresh()).peers == 0
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                find = (
                    discovery.find_specialist(name)
                    if is_specialist
                    else (discovery.find_domain("legal"))
                )
                group.create_task(find)
        assert [card.peer for card in directory.replicas(name, EPOCH)] == [ALICE.peer_id]
        reads = [at for at, read in store.reads if read == key]
        assert len(reads) == 1  # five at once share one lookup
        await discovery.find_specialist(name)
        await asyncio.sleep(5.0)
        await (discovery.find_specialist(name) if is_specialist else discovery.find_domain("legal"))
        assert len([at for at, read in store.reads if read == key]) == 2

    run_virtual(main())


def test_the_dead_are_forgotten() -> None:
    async def main() -> None:
        store = Store()
        store.publish(expires=EPOCH + 30)
        directory, discovery = make(store)
        await discovery.refresh()
        await asyncio.sleep(31.0)
        assert (await discovery.refresh()).peers == 0
        assert directory.node(PeerId(ALICE.peer_id), store.clock.now()) is None

    run_virtual(main())


def test_what_there_was_no_room_for_is_not_read_again_unless_it_is_looked_for() -> None:
    async def main() -> None:
        store = Store()
        store.publish()
        store.publish(index=specialist_key(SWARM, SpecialistId("law")))
        directory = Directory(SWARM, ME, VERIFIER, shelf=CardShelf(PeerId(ME), cards_max=0))
        discovery = Discovery(directory, store, store.clock, random.Random(1))
        reads = []
        for _ in range(3):
            await discovery.refresh()
            reads.append(sum("/card/" in key for _, key in store.reads))
        assert reads == [1, 1, 1]
        assert directory.is_partial(store.clock.now())
        await discovery.find_specialist(SpecialistId("law"))
        assert sum("/card/" in key for _, key in store.reads) == 2

    run_virtual(main())


def test_a_prefix_is_looked_up_for_some_of_its_cards() -> None:
    async def main() -> None:
        store = Store()
        prefix = "science"
        for number in range(20):
            identity = Identity(bytes([number + 9]) * 32)
            peer, expires = identity.peer_id, EPOCH + 600
            for record in (
                NodeRecord(peer, SWARM, 1, expires, (), "0.1.0", (), ("law",)),
                CapabilityCard(peer, SWARM, 1, expires, "law", "d", "b", "fp32", 9, (prefix,)),
                IndexRecord(peer, domain_key(SWARM, prefix), 1, expires, ("law",)),
            ):
                sealed = StoredValue(seal(record, identity), expires)
                store.table.setdefault(keys_of(record)[0], {})[peer] = sealed
        directory, discovery = make(store)
        await discovery.find_prefix(prefix, 5)
        assert len(directory.cards(EPOCH)) == len(directory.nodes(EPOCH)) == 5
        assert len(directory.indexed(domain_key(SWARM, prefix), EPOCH)) == 20
        assert not discovery.is_partial

    run_virtual(main())
