"""Finds cards for a prompt among those that this peer does not keep, by the index of domains.

Knows the directory's index records, discovery and the encoder port; must not know how prompts are
planned. A beam search: at each level of domains the few whose name, or whose best known card, lies
nearest to the prompt are looked up, which tells what lies below them and brings some cards.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.directory import Directory
from coordinator.discovery import Discovery
from coordinator.ports import Encoder
from protocols.domains import DEPTH_MAX, child_of, domain_prefixes
from protocols.errors import Unsupported
from protocols.ports import Clock
from protocols.records import CapabilityCard, domain_key, swarm_key

WEAK = 0.4
"""Cosine under which it is worth while to look further: two thirds of the prompts in the domain of
a card reach it (see `coordinator.routing.score`)."""
NAMES_MAX = 2_000
"""Names of domains whose directions are remembered."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How far one search goes."""

    beam: int = 3
    cards: int = 12
    """Read at each domain that is looked up."""
    names: int = 48
    """Encoded for one search; other domains count by their cards alone."""
    seconds: float = 2.0
    weak: float = WEAK


class DomainSearch:
    """One for all requests of a coordinator."""

    def __init__(
        self,
        directory: Directory,
        discovery: Discovery,
        encoder: Encoder,
        clock: Clock,
        settings: SearchSettings | None = None,
    ) -> None:
        self._directory = directory
        self._discovery = discovery
        self._encoder = encoder
        self._clock = clock
        self._settings = settings or SearchSettings()
        self._names: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    async def look(self, text: str) -> tuple[str, ...]:
        """Bring cards that may be near to `text` into the directory; the domains looked up.

        Does nothing if all cards are kept, or one of those that are is near. Ends after the
        settings' time with what was found by then.
        """
        now = self._clock.now()
        if not text or not (self._discovery.is_partial or self._directory.is_partial(now)):
            return ()
        looked_up: list[str] = []
        try:
            async with asyncio.timeout(self._settings.seconds):
                prompt = (await self._encoder.encode([text]))[0]
                if max(self._by_card(prompt).values(), default=-1.0) < self._settings.weak:
                    await self._descend(prompt, looked_up)
        except TimeoutError:
            pass
        return tuple(looked_up)

    async def _descend(self, prompt: NDArray[np.float32], looked_up: list[str]) -> None:
        frontier: Sequence[str] = ("",)
        for _ in range(DEPTH_MAX):
            children = self._children(frontier)
            if not children:
                return
            await self._learn_names(children)
            scores = self._scores(prompt, children)
            frontier = sorted(children, key=lambda child: (-scores[child], child))
            frontier = frontier[: self._settings.beam]
            looked_up += frontier
            async with asyncio.TaskGroup() as group:
                for prefix in frontier:
                    group.create_task(self._discovery.find_prefix(prefix, self._settings.cards))

    def _children(self, frontier: Iterable[str]) -> set[str]:
        """What lies one level below, by the index and by the cards that are kept."""
        now, swarm = self._clock.now(), self._directory.swarm
        found: set[str] = set()
        for prefix in frontier:
            key = domain_key(swarm, prefix) if prefix else swarm_key(swarm)
            named = [
                name for record in self._directory.indexed(key, now) for name in record.domains
            ]
            named += [domain for card in self._directory.cards(now) for domain in card.domains]
            found |= {child for domain in named if (child := child_of(prefix, domain))}
        return found

    async def _learn_names(self, domains: Iterable[str]) -> None:
        new = sorted(domain for domain in domains if domain not in self._names)
        new = new[: self._settings.names]
        if not new:
            return
        for domain in new:
            try:
                (vector,) = await self._encoder.encode([domain.replace("/", " ")])
            except Unsupported:  # a stranger's word: it must not cost the others their names
                vector = np.zeros(0, dtype=np.float32)
            self._names[domain] = vector
            if len(self._names) > NAMES_MAX:
                self._names.popitem(last=False)

    def _scores(self, prompt: NDArray[np.float32], domains: set[str]) -> dict[str, float]:
        """By domain: how near its name is, or the nearest known card in it or below."""
        none = np.zeros(0, dtype=np.float32)
        names = {domain: self._names.get(domain, none) for domain in domains}
        scores = {
            domain: float(name @ prompt) if name.size == prompt.size else -1.0
            for domain, name in names.items()
        }
        for card_domains, cosine in self._by_card(prompt).items():
            prefixes = {prefix for domain in card_domains for prefix in domain_prefixes(domain)}
            for prefix in prefixes & scores.keys():
                scores[prefix] = max(scores[prefix], cosine)
        return scores

    def _by_card(self, prompt: NDArray[np.float32]) -> dict[tuple[str, ...], float]:
        """By the domains of a card: how near the nearest card with these is to `prompt`."""
        cards = [
            card
            for card in self._directory.cards(self._clock.now())
            if card.encoder == self._encoder.digest and _is_of(card, prompt.size)
        ]
        found: dict[tuple[str, ...], float] = {}
        for card, cosine in zip(cards, nearest_cosines(prompt, cards), strict=True):
            found[card.domains] = max(found.get(card.domains, -1.0), float(cosine))
        return found


def nearest_cosines(
    prompt: NDArray[np.float32], cards: Sequence[CapabilityCard]
) -> NDArray[np.float32]:
    """`[cards]`: the cosine of `prompt` with the nearest prototype of each, all at once.

    Each card has prototypes, and all have as many dimensions as `prompt`.
    """
    if not cards:
        return np.zeros(0, dtype=np.float32)
    data = b"".join(one.vector for card in cards for one in card.prototypes)
    rows = np.frombuffer(data, dtype=np.int8).reshape(-1, prompt.size).astype(np.float32)
    lengths = np.maximum(np.linalg.norm(rows, axis=1), 1e-6)
    cosines = (rows @ prompt) / lengths
    counts = [len(card.prototypes) for card in cards]
    starts = np.cumsum([0, *counts[:-1]])
    best: NDArray[np.float32] = np.maximum.reduceat(cosines, starts).astype(np.float32)
    return best


def _is_of(card: CapabilityCard, dimensions: int) -> bool:
    return bool(card.prototypes) and all(len(one.vector) == dimensions for one in card.prototypes)
