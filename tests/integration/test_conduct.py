"""What strangers earn in a public swarm: while connected, over restarts, until they do harm."""

import asyncio
import logging
from pathlib import Path

import pytest

from coordinator.reputation import Outcome
from coordinator.standing import KNOWN_AFTER_SECONDS, KNOWN_AFTER_TOKENS, Standing
from node.config import SwarmConfig
from node.footing import Ears
from node.swarms.conduct import ONE_FLOOD_SECONDS, ConductBook
from node.swarms.folder import SwarmFolder
from protocols import allowances
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.errors import ConfigError
from protocols.ids import PeerId, SpecialistId
from protocols.membership.charter import Charter
from protocols.records import CapabilityCard
from protocols.signing import Identity
from tests.integration.small_nodes import SmallNode, settings, small_node

OWNER, ME = Identity(bytes(32)), Identity(b"m" * 32)
ANNA, BEN = (Identity(bytes([number]) * 32).peer_id for number in (1, 2))
PUBLIC = Charter("map", OWNER.peer_id)
PRIVATE = Charter("lab", OWNER.peer_id, is_private=True)


@pytest.fixture
def folder(tmp_path: Path) -> SwarmFolder:
    return SwarmFolder.create(tmp_path / "swarms", PUBLIC, ME)


async def earn(book: ConductBook, peer: PeerId, seconds: float = KNOWN_AFTER_SECONDS) -> None:
    end = asyncio.get_running_loop().time() + seconds
    book.met((peer,))
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(5.0)
        book.met((peer,))


def test_what_was_earned_is_there_after_a_restart(folder: SwarmFolder) -> None:
    async def main() -> None:
        clock = LoopClock()
        book = ConductBook(folder, clock)
        assert not book.save()
        await earn(book, ANNA)
        book.served(BEN, KNOWN_AFTER_TOKENS)
        assert book.allowance_of(ANNA) == book.allowance_of(BEN) == allowances.KNOWN
        assert book.save()
        assert not book.save()
        again = ConductBook(SwarmFolder.load(folder.path), clock)
        assert again.allowance_of(ANNA) == again.allowance_of(BEN) == allowances.KNOWN
        assert not again.save()
        again.flooded(ANNA)
        assert again.save()
        assert ConductBook(folder, clock).allowance_of(ANNA) == allowances.NEWCOMER

    run_virtual(main())


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\x81\xa1x\x93\x01\x02"])
def test_a_damaged_file_is_named_and_everybody_begins_anew(
    folder: SwarmFolder, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        folder.save_standing(data)
        with pytest.raises(ConfigError, match=r"standing is damaged.*Delete it"):
            folder.standing()
        with pytest.raises(ConfigError):
            folder.check()
        with caplog.at_level(logging.WARNING):
            book = ConductBook(folder, LoopClock())
        assert "standing is damaged" in caplog.text
        book.met((ANNA,))
        assert book.save()
        assert len(Standing.load(folder.standing())) == 1

    run_virtual(main())


def test_a_flood_is_one_offence(folder: SwarmFolder) -> None:
    async def main() -> None:
        book = ConductBook(folder, LoopClock())
        ears = Ears(book)
        await earn(book, ANNA)
        for _ in range(1_000):
            ears.on_flood(ANNA)
        assert book.allowance_of(ANNA) == allowances.NEWCOMER
        await earn(book, ANNA, 2 * KNOWN_AFTER_SECONDS)
        assert book.allowance_of(ANNA) == allowances.KNOWN

    run_virtual(main())


def test_two_floods_are_two_offences(folder: SwarmFolder) -> None:
    async def main() -> None:
        book = ConductBook(folder, LoopClock())
        ears = Ears(book)
        ears.on_flood(ANNA)
        await asyncio.sleep(ONE_FLOOD_SECONDS)
        ears.on_flood(ANNA)
        await earn(book, ANNA, 3 * KNOWN_AFTER_SECONDS)
        assert book.allowance_of(ANNA) == allowances.NEWCOMER
        await earn(book, ANNA, KNOWN_AFTER_SECONDS)
        assert book.allowance_of(ANNA) == allowances.KNOWN

    run_virtual(main())


def test_in_a_private_swarm_nothing_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        folder = SwarmFolder.create(tmp_path / "swarms", PRIVATE, ME)
        book = ConductBook(folder, LoopClock())
        book.met((ANNA,))
        book.served(ANNA, 1_000)
        book.flooded(ANNA)
        assert len(book.standing) == 0
        assert not book.save()
        assert not (folder.path / "standing").exists()

    run_virtual(main())


async def until_alone(host: SmallNode) -> None:
    async with asyncio.timeout(20):
        while await host["map"].company.refresh():  # noqa: ASYNC110 - p2pd tells nobody
            await asyncio.sleep(0.1)


@pytest.mark.integration
async def test_presence_counts_while_the_connection_lasts(tmp_path: Path) -> None:
    config = settings(tmp_path / "host")
    async with small_node(config) as host:
        presence = await host.found("map", is_private=False)
        async with small_node(settings(tmp_path / "guest")) as guest:
            assert (await guest.join(await host.invite("map"))).joined
            stranger = guest["map"].me
            assert await presence.company.refresh() == (stranger,)
            assert presence.gate.allowance(stranger) == allowances.NEWCOMER
            conduct = presence._footing.ears.conduct
            conduct.served(stranger, KNOWN_AFTER_TOKENS)
            assert presence.gate.allowance(stranger) == allowances.KNOWN
            presence.network.on_flood(stranger)
            assert presence.gate.allowance(stranger) == allowances.NEWCOMER
            conduct.served(stranger, 2 * KNOWN_AFTER_TOKENS)
            assert presence.gate.allowance(stranger) == allowances.KNOWN
            presence.coordinator.reputation.report(SpecialistId("law"), stranger, Outcome.DIED)
        await until_alone(host)
        assert presence.others() == (stranger,), "admitted still, but gone"
        assert presence.reach._ports.peers() == ()
    kept = SwarmFolder.load(config.paths.swarms / "map").standing()
    assert Standing.load(kept).is_known(stranger)
    async with small_node(config) as host:
        ears = host["map"]._footing.ears
        assert ears.conduct.allowance_of(stranger) == allowances.KNOWN
        law = CapabilityCard(stranger, "s", 1, 1e10, "law", "d", "b", "fp32", 9)
        assert host["map"].coordinator.reputation.expected(law) == pytest.approx(0.5, abs=0.01)


@pytest.mark.integration
@pytest.mark.slow
async def test_newcomers_may_be_as_welcome_as_members(tmp_path: Path) -> None:
    config = settings(tmp_path / "host", swarm=SwarmConfig(newcomers="welcome"))
    async with small_node(config) as host, small_node(settings(tmp_path / "guest")) as guest:
        presence = await host.found("map", is_private=False)
        assert (await guest.join(await host.invite("map"))).joined
        assert presence.gate.allowance(guest["map"].me) == allowances.MEMBER
        assert host.presences.allowance(guest["map"].me) == allowances.MEMBER
        assert presence.gate.allowance(ANNA) == allowances.NOBODY
        assert guest["map"].gate.allowance(presence.me) == allowances.NEWCOMER
