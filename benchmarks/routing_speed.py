"""How long a decision takes: encoding, scoring and planning, with 1,000 cards on one core.

Knows the router; must not know what is right. Cards are made of random sentences' vectors, each
with eight prototypes and a description; descriptions are learnt before, as a node does when it
meets cards. Prompts never repeat. The baseline is the encoder alone. The encoder computes with one
thread; `OMP_NUM_THREADS=1 taskset -c 0` keeps the rest on the same core.
"""

import asyncio
import random
import time

import numpy as np

from coordinator.measure import PeerMeasurements
from coordinator.routing.head import load_head
from coordinator.routing.router import Router
from node.hosting.encoder import MiniLmEncoder
from node.hosting.prototypes import make_prototypes
from protocols.ids import PeerId
from protocols.messages.ask import Text
from protocols.records import CapabilityCard
from report import Row as Line
from samples import percentile

CARDS = 1_000
DESCRIPTIONS = 50
"""Different ones; more would only take longer to learn."""
PROMPTS = 60
LIMITS = {32: 15.0, 128: 50.0}
"""Tokens of a prompt, and milliseconds that may pass."""
_WORDS = [
    "court",
    "contract",
    "cell",
    "blood",
    "force",
    "energy",
    "market",
    "price",
    "number",
    "proof",
    "memory",
    "brain",
    "war",
    "law",
    "vote",
    "virus",
    "algorithm",
    "data",
    "heat",
    "wave",
    "tax",
    "trade",
    "child",
    "fear",
    "treaty",
    "king",
    "gene",
    "drug",
    "angle",
    "matrix",
]


def speed_lines(encoder: MiniLmEncoder) -> list[Line]:
    """A row for each length of prompt."""
    return asyncio.run(_measure(encoder))


async def _measure(encoder: MiniLmEncoder) -> list[Line]:
    router = Router(encoder, PeerMeasurements(PeerId("me")), head=load_head())
    cards = await _cards(encoder)
    await router.learn(cards)
    rng = random.Random(1)
    found = []
    for tokens, limit in LIMITS.items():
        plans, encodings = [], []
        for at in range(PROMPTS):
            text = _prompt(rng, tokens)
            started = time.perf_counter()
            await router.plan(Text(text), cards, 0.0)
            plans.append((time.perf_counter() - started) * 1e3)
            started = time.perf_counter()
            await encoder.encode([_prompt(rng, tokens)])
            encodings.append((time.perf_counter() - started) * 1e3)
            assert at or plans
        middle, alone = percentile(plans, 0.5), percentile(encodings, 0.5)
        spread = f"p95 {percentile(plans, 0.95):.1f} ms"
        note = f"{spread}; the encoder alone {alone:.1f} ms, by {encoder.about}"
        name = f"decision, {tokens} tokens, {CARDS:,} cards: p50"
        target = f"{limit:g} ms"
        row = Line(name, middle, "ms", "encoder", middle / alone, target, middle <= limit, note)
        found.append(row)
    return found


async def _cards(encoder: MiniLmEncoder) -> list[CapabilityCard]:
    rng, noise = random.Random(0), np.random.default_rng(0)
    texts = [" ".join(rng.choices(_WORDS, k=8)) for _ in range(64)]
    vectors = await encoder.encode(texts)
    cards = []
    for at in range(CARDS):
        own = vectors[noise.integers(64, size=8)]
        own = own + 0.03 * noise.standard_normal(own.shape, dtype=np.float32)
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        words = random.Random(at % DESCRIPTIONS).choices(_WORDS, k=24)
        description = f"{' '.join(words[:12])}. {' '.join(words[12:])}."
        cards.append(
            CapabilityCard(
                peer="p",
                swarm="s",
                sequence=1,
                expires_at=1e10,
                specialist=f"trial/{at}",
                model_digest="d",
                base="b",
                precision="fp32",
                context_length=2048,
                domains=("trial",),
                description=description,
                encoder=encoder.digest,
                prototypes=make_prototypes(own, 8),
            )
        )
    base = CapabilityCard("p", "s", 1, 1e10, "base", "d", "b", "fp32", 2048)
    return [*cards, base]


def _prompt(rng: random.Random, tokens: int) -> str:
    """Sentences of ten words, of one token each but for the full stop and two special ones."""
    words = rng.choices(_WORDS, k=tokens - 2)
    for at in range(10, len(words), 11):
        words[at - 1] += "."
    return " ".join(words)
