"""The announcer: what it publishes, under which keys, in which order."""

from random import Random

from coordinator.directory import Directory
from node.announcer import DOMAIN_KEYS_MAX, LIFETIME_SECONDS, Announcer, Offer, records_of
from protocols.errors import TransportDown
from protocols.ids import SwarmId
from protocols.records import CapabilityCard, IndexRecord, NodeRecord, believe, seal
from protocols.signing import Identity

IDENTITY = Identity(bytes(range(32)))
ME = IDENTITY.peer_id


class Table:
    """A record store that remembers the order of what it took."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, bytes, float]] = []
        self.down = False

    async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
        if self.down:
            raise TransportDown("down")
        self.taken.append((key, subkey, value, expires_at))
        return True

    async def get(self, key: str) -> dict[str, object]:
        raise NotImplementedError


class Frozen:
    wall = 1_000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return 0.0


def card(specialist: str, *domains: str) -> CapabilityCard:
    return CapabilityCard(
        peer=ME,
        swarm="lab",
        sequence=0,
        expires_at=0,
        specialist=specialist,
        model_digest="d" * 64,
        base="base",
        precision="fp32",
        context_length=100,
        domains=domains,
    )


def offer() -> Offer:
    node = NodeRecord(ME, "lab", 0, 0, ("/ip4/127.0.0.1/tcp/1",), "0.1.0", (), ("law", "math"))
    return Offer(node, (card("math", "mathematics", "physics"), card("law", "law")))


def announcer(table: Table, clock: Frozen) -> Announcer:
    directory = Directory(SwarmId("lab"), ME)
    return Announcer(IDENTITY, table, directory, clock, Random(0), offer)  # type: ignore[arg-type]


async def test_everything_published_is_believed_where_it_lies() -> None:
    table, clock = Table(), Frozen()
    assert await announcer(table, clock).announce()
    records = {key: believe(value, key, who, clock.wall) for key, who, value, _ in table.taken}
    assert sorted(records) == [
        f"dslm/1/lab/card/{ME}/law",
        f"dslm/1/lab/card/{ME}/math",
        "dslm/1/lab/domain/law",
        "dslm/1/lab/domain/mathematics",
        "dslm/1/lab/domain/physics",
        f"dslm/1/lab/node/{ME}",
        "dslm/1/lab/peers",
        "dslm/1/lab/specialist/law",
        "dslm/1/lab/specialist/math",
    ]
    assert {record.expires_at for record in records.values()} == {clock.wall + LIFETIME_SECONDS}
    physics = records["dslm/1/lab/domain/physics"]
    assert isinstance(physics, IndexRecord)
    assert physics.specialists == ("math",)


async def test_indexes_come_after_what_they_lead_to() -> None:
    table = Table()
    await announcer(table, Frozen()).announce()
    kinds = [type(believe(value, key, who, 1_000.0)) for key, who, value, _ in table.taken]
    assert kinds.index(IndexRecord) == 3
    assert set(kinds[3:]) == {IndexRecord}


async def test_sequences_rise_even_if_the_clock_goes_back() -> None:
    table, clock = Table(), Frozen()
    announcing = announcer(table, clock)
    sequences = []
    for wall in (1_000.0, 1_000.0, 500.0, 2_000.0):
        clock.wall = wall
        table.taken.clear()
        await announcing.announce()
        key, who, value, _ = table.taken[0]
        sequences.append(believe(value, key, who, wall).sequence)
    assert sequences == sorted(set(sequences))


async def test_a_store_that_is_down_is_no_error_but_no_success() -> None:
    table = Table()
    table.down = True
    assert not await announcer(table, Frozen()).announce()
    table.down = False
    assert await announcer(table, Frozen()).announce()


async def test_we_know_ourselves_even_when_nobody_can_be_told() -> None:
    table, clock = Table(), Frozen()
    table.down = True
    directory = Directory(SwarmId("lab"), ME)
    announcing = Announcer(IDENTITY, table, directory, clock, Random(0), offer)  # type: ignore[arg-type]
    await announcing.announce()
    assert directory.specialists(clock.wall) == ("law", "math")


async def test_a_change_is_known_to_ourselves_at_once_and_what_is_gone_stays_away() -> None:
    table, clock, hosted = Table(), Frozen(), offer()
    directory = Directory(SwarmId("lab"), ME)
    announcing = Announcer(IDENTITY, table, directory, clock, Random(0), lambda: hosted)  # type: ignore[arg-type]
    announcing.changed()
    assert directory.specialists(clock.wall) == (), "who never announced does not begin to"
    await announcing.announce()
    everything = tuple(table.taken)
    hosted = Offer(hosted.node, hosted.cards[:1])
    for _ in range(2):
        announcing.changed()  # nothing is awaited from here on
        assert directory.specialists(clock.wall) == ("math",)
        assert directory.node(ME, clock.wall) is not None
        assert not directory.indexed("dslm/1/lab/domain/law", clock.wall)
        for key, who, value, _ in everything:  # the store has it still, and discovery finds it
            directory.offer(value, key, who, clock.wall)
        assert directory.specialists(clock.wall) == ("math",)
    hosted = offer()
    announcing.changed()
    assert directory.specialists(clock.wall) == ("law", "math")
    assert len(table.taken) == len(everything)


async def test_own_records_are_known_before_any_is_put() -> None:
    class Asking(Table):
        async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
            known.append(directory.specialists(1_000.0))
            return await super().put(key, subkey, value, expires_at)

    known: list[tuple[str, ...]] = []
    directory = Directory(SwarmId("lab"), ME)
    announcing = Announcer(IDENTITY, Asking(), directory, Frozen(), Random(0), offer)  # type: ignore[arg-type]
    await announcing.announce()
    assert set(known) == {("law", "math")}


async def test_a_domain_is_indexed_under_its_prefixes_which_tell_what_lies_below() -> None:
    cards = (
        card("a", "science/physics", "science/chemistry"),
        card("b", "Science / physics/optics"),
    )
    node = NodeRecord(ME, "lab", 0, 0, (), "0.1.0", (), ("a", "b"))
    found = {
        key.removeprefix("dslm/1/lab/"): (record.specialists, record.domains)
        for key, record in records_of(Offer(node, cards), 1, 2.0)
        if isinstance(record, IndexRecord)
    }
    assert found == {
        "peers": (("a", "b"), ("science",)),
        "specialist/a": (("a",), ()),
        "specialist/b": (("b",), ()),
        "domain/science": (("a", "b"), ("science/physics", "science/chemistry")),
        "domain/science/physics": (("a", "b"), ("science/physics/optics",)),
        "domain/science/chemistry": (("a",), ()),
        "domain/science/physics/optics": (("b",), ()),
    }


async def test_a_peer_is_indexed_under_so_many_domains_only() -> None:
    cards = tuple(
        card(f"s{number}", *(f"top{number}/{low}" for low in range(8))) for number in range(60)
    )
    node = NodeRecord(ME, "lab", 0, 0, (), "0.1.0", (), tuple(f"s{n}" for n in range(60)))
    records = dict(records_of(Offer(node, cards), 1, 2.0))
    assert sum("/domain/" in key for key in records) == DOMAIN_KEYS_MAX
    for record in records.values():
        seal(record, IDENTITY)
