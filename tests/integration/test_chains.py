"""Real daemons, two made-up specialists on the real base: a chain over two nodes, and their deaths.

The adapters change next to nothing, so that their words are the base's; their cards differ.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from node.cli.answering import Answer, ChatMessage, ChatRequest, Note, ask_streaming
from node.cli.trial_swarm import TrialNode, TrialSwarm, address_of
from node.config import environment
from node.engine.adapters.weights import PartName
from node.engine.weights.packings import Int8Rows
from node.hosting.compact_adapter import CompactConfig, write_compact
from node.hosting.fetch import default_encoder_paths
from node.shipped import Specialist, models_toml
from node.state import PeersState
from node.work_state import StatsState

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROMPT = (
    "What are the symptoms of type 2 diabetes? Then tell me, is a verbal agreement a binding "
    "contract between two companies?"
)
SUBJECTS = {
    "lab/law": (
        "Contracts, court rulings, statutes and legal rights",
        "Is a verbal agreement a binding contract?",
        "Does this clause limit the liability of the seller?",
        "Can a tenant be evicted without notice?",
    ),
    "lab/medicine": (
        "Diseases, symptoms, treatments and drugs",
        "What are the symptoms of type 2 diabetes?",
        "How is high blood pressure treated?",
        "What are the side effects of ibuprofen?",
    ),
}
ROWS: dict[PartName, int] = {"query": 576, "value": 192}
ASSISTANT = (1, 520, 9531, 198)
TOKENS = 128
Strike = Callable[[Note | str], None]


def specialist(folder: Path, name: str) -> Specialist:
    """A specialist of which the weights matter little."""
    description, *examples = SUBJECTS[name]
    place = folder / name.replace("/", "-")
    codes = torch.ones((576, 2), dtype=torch.int8)
    faint = torch.full((576,), 1e-6 if name == "lab/law" else 2e-6, dtype=torch.bfloat16)
    write_compact(
        place,
        CompactConfig("dslm-adapter-1", 1, 2, 1.0, tuple(ROWS), invocation=ASSISTANT),
        {
            (layer, part): Int8Rows(codes[:rows].clone(), faint[:rows].clone())
            for layer in range(30)
            for part, rows in ROWS.items()
        },
    )
    return Specialist(name, place, (name.partition("/")[2],), description, tuple(examples))


@dataclass
class Place:
    """Who is asked, and who answers."""

    swarm: TrialSwarm
    asker: TrialNode

    def host_of(self, peer: str) -> TrialNode:
        known = self.asker.client.get("/api/v1/peers", PeersState).peers
        name = next(one.name for one in known if one.peer == peer)
        return next(node for node in self.swarm.nodes if node.name == name)

    def ask(self, strike: Strike = lambda _: None) -> Answer:
        request = ChatRequest(
            model="auto",
            messages=[ChatMessage("user", PROMPT)],
            max_tokens=TOKENS,
            temperature=0.0,
        )
        return ask_streaming(self.asker.client, request, strike, strike, lambda _: None)


@pytest.fixture(scope="module")
def place(
    smollm2_path: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    assert smollm2_path.exists()
    if not default_encoder_paths(models_dir).exist:
        pytest.skip("the sentence encoder is not there: run scripts/test, which fetches it")
    folder = tmp_path_factory.mktemp("adapters")
    law, medicine = (specialist(folder, name) for name in sorted(SUBJECTS))
    with TrialSwarm(models_dir, environment(), precision="fp32") as swarm:
        asker = swarm.start("asker", "none")
        swarm.wait_ready([asker], 90)
        address = [address_of(asker)]
        for name, hosted in (("one", medicine), ("two", law), ("three", law)):
            host = swarm.start(name, "", address, models_toml([hosted]))
            swarm.wait_ready([host], 120)
        swarm.wait_met(asker, 3, 90, tuple(SUBJECTS))
        yield Place(swarm, asker)


class Killer:
    """Kills whoever speaks in the second step, after its first words."""

    def __init__(self, place: Place, times: int) -> None:
        self._place = place
        self._left = times
        self._peer = ""
        self._words = 0
        self.killed: list[str] = []

    def __call__(self, what: Note | str) -> None:
        if isinstance(what, Note):
            if (what.phase, what.step) == ("step", 1):
                self._peer = what.peer
            elif what.phase == "resumed" and self._peer:
                self._peer, self._words = what.to_peer, 0
            return
        self._words += bool(self._peer)
        if self._left and self._peer and self._words == 1:
            node = self._place.host_of(self._peer)
            self._left -= 1
            self.killed.append(node.name)
            self._place.swarm.kill(node)


def test_the_base_is_asked_what_it_makes_of_a_doubtful_answer(place: Place) -> None:
    """These adapters change next to nothing: the base finds their words as likely as they do."""
    sceptic = place.swarm.start(
        "sceptic", "none", [address_of(place.asker)], 'models = "none"\n[router]\ndoubt = "base"\n'
    )
    place.swarm.wait_ready([sceptic], 90)
    place.swarm.wait_met(sceptic, 3, 90, tuple(SUBJECTS))
    answer = Place(place.swarm, sceptic).ask()
    doubted = [step for step in answer.report.steps if step.others]
    assert doubted, "of two specialists the router prefers one to the other in a step at most"
    for step in doubted:
        assert step.error is None
        for found in (step.evidence, *(other.evidence for other in step.others)):
            assert found is not None
            assert found.gain == pytest.approx(0.0, abs=0.05)
            assert found.logprob < -0.1
    place.swarm.kill(sceptic)


def test_a_chain_over_two_nodes_one_of_which_dies_in_the_middle(place: Place) -> None:
    """In one test, since nodes that died stay dead."""
    calm = place.ask()
    first, second = calm.report.steps
    assert (first.specialist, second.specialist) == ("lab/medicine", "lab/law")
    assert first.peers[0].peer != second.peers[0].peer
    assert calm.report.plan is not None
    assert calm.report.plan.kind == "chain"
    assert second.memory.steps == (0,)
    assert second.memory.characters == len(first.text.strip())
    assert second.prompt_tokens > first.prompt_tokens + first.tokens
    assert first.evidence is not None
    assert -2.0 < first.evidence.logprob < 0.0
    assert calm.report.activity is not None
    assert len(calm.report.activity.peers) >= 2
    assert calm.report.activity.bytes_received > 1_000

    killer = Killer(place, 1)
    struck = place.ask(killer)
    assert len(killer.killed) == 1
    assert struck.text == calm.text
    assert len(struck.report.steps[1].peers) == 2
    assert struck.report.resumed >= 1

    last = Killer(place, 1)
    partial = place.ask(last)
    assert {*killer.killed, *last.killed} == {"two", "three"}
    one, two = partial.report.steps
    assert one.error is None
    assert two.error
    assert 0 < two.tokens < second.tokens
    assert "lab/law said no more" in partial.text
    assert partial.finish_reason == "length"

    stats = place.asker.client.get("/api/v1/stats", StatsState)
    assert (stats.answers, stats.failed, stats.plans) == (3, 0, {"chain": 3})
    law = next(work for work in stats.by_specialist if work.id == "lab/law")
    assert (law.answers, law.failed) == (2, 1)
