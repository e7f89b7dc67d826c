"""Sybils around a key: honest peers find what honest peers published, and believe nothing else.

Every peer is the real record store over a wire in virtual time; see `sybil_trial`. The full form,
several seeds each, is marked slow; `scripts/bench sybils` runs it with 50. A failure prints its
seed.
"""

import asyncio
import random

import pytest

from coordinator.directory import Directory
from coordinator.discovery import Discovery
from protocols.adapters.virtual import run_virtual
from protocols.ids import PeerId
from protocols.records import CapabilityCard, NodeRecord, card_key, node_key, seal
from tests.simulation.dht_world import Honest, simulated_hivemind
from tests.simulation.sybil_trial import LAW, LIFETIME, Setting, Tally, Trial, run_trial
from tests.simulation.sybils import BEHAVIOURS, FORGING, REPLAYING, SILENT, Behaviour

SEEDS = 6
SLOW = pytest.mark.slow
SMALL = {"peers": 30, "publishers": 2, "readers": 3, "pool": 1_000}
ENOUGH = {0.2: 0.99, 0.33: 0.95}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["index", "card"])
def test_what_a_third_of_sybils_surrounds_is_found(target: str) -> None:
    setting = Setting(share=0.33, target=target, **SMALL)  # type: ignore[arg-type]
    for name, tally in run_trial(1, setting, BEHAVIOURS).items():
        assert tally.lookups == setting.readers, name
        assert tally.succeeded == tally.lookups, f"seed 1, {name}: {tally}"
        assert tally.forged == 0, f"seed 1, {name}: {tally}"


def test_the_same_attack_hides_everything_from_hivemind_s_own_way() -> None:
    """The attack bites: without this the other tests would show nothing."""
    setting = Setting(share=0.33, is_plain=True, **SMALL)  # type: ignore[arg-type]
    tally = run_trial(1, setting, [SILENT])[SILENT.name]
    assert (tally.lookups, tally.succeeded) == (setting.readers, 0)


@pytest.mark.parametrize(
    "behaviour",
    [pytest.param(FORGING, id="forging"), pytest.param(REPLAYING, id="replaying", marks=SLOW)],
)
def test_discovery_finds_every_card_and_believes_no_forged_one(behaviour: Behaviour) -> None:
    setting = Setting(share=0.33, **SMALL)  # type: ignore[arg-type]

    async def live() -> None:
        trial = Trial(2, setting)
        with simulated_hivemind(trial.world.clock):
            await trial.gather_peers()
            trial.sybils.behaviour = behaviour
            sealed = await _publish(trial)
            for place in trial.places:
                await trial.sybils.poison([peer.peer_id for peer in trial.world.honest], place)
            for reader in trial.world.honest[:3]:
                await _check_discovery(trial, reader, sealed)
            await trial.world.close()

    run_virtual(live())


async def _publish(trial: Trial) -> set[bytes]:
    """Cards, node records and index entries of all publishers, twice; the cards, sealed."""
    sealed = set[bytes]()
    for sequence in (1, 2):
        end = trial.world.clock.now() + LIFETIME
        trial.start_round()
        for peer in trial.publishing():
            me, swarm = peer.peer_id, trial.swarm
            node = NodeRecord(me, swarm, sequence, end, (), "0.1.0", (), (LAW,))
            card = CapabilityCard(me, swarm, sequence, end, LAW, "d", "b", "int8", 2_048)
            for key, record in ((node_key(swarm, me), node), (card_key(swarm, me, LAW), card)):
                assert await peer.records.put(key, me, seal(record, peer.identity), end)
            sealed.add(seal(card, peer.identity))
            value, expires_at = trial.record(peer)
            assert await peer.records.put(trial.key, me, value, expires_at)
        await asyncio.sleep(10.0)
    return sealed


async def _check_discovery(trial: Trial, reader: Honest, sealed: set[bytes]) -> None:
    directory = Directory(trial.swarm, reader.peer_id)
    clock = trial.world.clock
    await Discovery(directory, reader.records, clock, random.Random(3)).refresh()
    by_id = {peer.peer_id: peer.identity for peer in trial.world.honest}
    names = {peer.peer_id for peer in trial.publishing()}
    assert {node.peer for node in directory.nodes(clock.now())} == names
    cards = directory.cards(clock.now())
    assert {card.peer for card in cards} == names
    for card in cards:  # the older one will do as long as it lives
        assert seal(card, by_id[PeerId(card.peer)]) in sealed


@pytest.mark.slow
def test_a_newcomer_with_one_honest_bootstrap_peer_of_three_sees_past_the_liars() -> None:
    setting = Setting(share=0.33, lying_bootstraps=2, **SMALL)  # type: ignore[arg-type]
    tally = run_trial(3, setting, [SILENT])[SILENT.name]
    assert tally.succeeded == tally.lookups


@pytest.mark.slow
def test_lookups_outlive_the_death_of_a_third_of_the_peers() -> None:
    """No attack: holders are gone, and the search does not stay with those who do not answer."""
    setting = Setting(share=0.0, lying_bootstraps=0, **SMALL)  # type: ignore[arg-type]

    async def live() -> Tally:
        trial = Trial(4, setting)
        with simulated_hivemind(trial.world.clock):
            await trial.gather_peers()
            tally = await trial.attack(SILENT, deaths=setting.peers // 3)
            await trial.world.close()
        return tally

    tally = run_virtual(live())
    assert tally.succeeded == tally.lookups == setting.readers
    assert max(tally.get_seconds) < 8.0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["index", "card"])
@pytest.mark.parametrize("share", [0.2, 0.33])
def test_of_many_worlds_nearly_all_lookups_succeed(share: float, target: str) -> None:
    setting = Setting(peers=60, share=share, target=target, publishers=2, readers=4)
    total = {behaviour.name: Tally() for behaviour in BEHAVIOURS}
    for seed in range(SEEDS):
        for name, tally in run_trial(seed, setting, BEHAVIOURS).items():
            assert tally.forged == 0, f"seed {seed}, {name}"
            total[name].add(tally)
    for name, tally in total.items():
        assert tally.succeeded >= ENOUGH[share] * tally.lookups, f"{name}: {tally}"
