"""What routing gains in the end: the specialists' own losses on the prompts that they were given.

Knows a table of losses and the cards that ship; must not know how the losses were measured. The
table is the npz of `benchmarks/specialists.py`: for each specialist, `base` and test part the nats
of each item, `ARM/NAME/test/nats` [items], and `tokens/NAME/test` [items]. Each part weighs the
same, as tokens of its own; prompts are read from the data sets again.
"""

import asyncio
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.measure import PeerMeasurements
from coordinator.routing.head import load_head
from coordinator.routing.plan import Plan
from coordinator.routing.router import Router
from node.card_content import portray
from node.card_file import read_card_file
from node.hosting.encoder import MiniLmEncoder
from node.training.domains.catalogue import NAMES, own_domain
from protocols.ids import PeerId
from protocols.messages.ask import Text
from protocols.records import CapabilityCard
from report import Row as Line

SPECIALISTS = Path(__file__).parents[1] / "node" / "specialists"
PROMPTS_MAX = 150
"""Of each part, drawn by a fixed seed: a few long sets would only take longer."""
RESAMPLES = 1_000
Array = NDArray[np.float64]


def outcome_lines(path: Path, data: Path, encoder: MiniLmEncoder) -> list[Line]:
    """The share of what the right label gains over the base that the router's choice gains."""
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    router = Router(encoder, PeerMeasurements(PeerId("me")), head=load_head())
    cards = asyncio.run(shipped_cards(encoder))
    parts, used, right = [], [], []
    for name in NAMES:
        prompts = [one.prompt for one in own_domain(data, name).test]
        tokens = found[f"tokens/{name}/test"].astype(np.float64)
        assert len(prompts) == len(tokens), f"{name}: not the same items"
        count = min(PROMPTS_MAX, len(prompts))
        rows = np.sort(np.random.default_rng(0).choice(len(prompts), count, replace=False))
        plans = asyncio.run(_plans(router, cards, [prompts[row] for row in rows]))
        pairs = zip(plans, rows.tolist(), strict=True)
        routed = np.array([_nats(found, plan, name, row) for plan, row in pairs])
        base, oracle = (found[f"{arm}/{name}/test/nats"][rows] for arm in ("base", name))
        parts.append(np.stack([base, routed, oracle, tokens[rows]]).astype(np.float64))
        used += [len({step.specialist for step in plan.steps} - {"base"}) for plan in plans]
        right.append(float(np.mean([plan.steps[0].specialist == name for plan in plans])))
    each = ", ".join(f"{name} {share:.2f}" for name, share in zip(NAMES, right, strict=True))
    rng = np.random.default_rng(0)
    drawn = [
        _recovered([one[:, rng.integers(one.shape[1], size=one.shape[1])] for one in parts])
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    value, mean = _recovered(parts), float(np.mean(used))
    note = f"[{low:.3f}, {high:.3f}]; {len(used):,} prompts; first choice right: {each}"
    return [
        Line("gap recovered", value, "", target=".92", met=value >= 0.92, note=note),
        Line("specialists a prompt", mean, "", target="1.15", met=mean <= 1.15),
    ]


def _recovered(parts: list[Array]) -> float:
    """Of `[base, routed, oracle, tokens]` a part: gains are means over the parts' nats a token."""
    levels = np.array([one[:3].sum(axis=1) / one[3].sum() for one in parts])
    base, routed, oracle = levels.mean(axis=0)
    return float((base - routed) / (base - oracle))


def _nats(found: dict[str, Array], plan: Plan, name: str, row: int) -> float:
    """Of the plan's last step: it is who gives the answer."""
    return float(found[f"{plan.steps[-1].specialist}/{name}/test/nats"][row])


async def _plans(router: Router, cards: list[CapabilityCard], prompts: list[str]) -> list[Plan]:
    return [await router.plan(Text(prompt), cards, 0.0) for prompt in prompts]


async def shipped_cards(encoder: MiniLmEncoder) -> list[CapabilityCard]:
    """Those of the specialists that ship, as a node announces them, and the plain base's."""
    cards = [CapabilityCard("p", "s", 1, 1e10, "base", "d", "b", "fp32", 2048)]
    for name in NAMES:
        said = read_card_file(SPECIALISTS / name / "card.toml")
        portrait = await portray(said, encoder)
        cards.append(
            CapabilityCard(
                *("p", "s", 1, 1e10, name, "d", "b", "fp32", 2048),
                domains=said.domains,
                description=said.description,
                encoder=portrait.encoder,
                prototypes=portrait.prototypes,
            )
        )
    return cards
