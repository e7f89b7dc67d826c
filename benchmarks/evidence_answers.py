"""Answers by every specialist to prompts of every domain, each with its likelihoods.

Knows hosting, data sets and the router; must not know what is concluded from the likelihoods.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import Struct

from coordinator.chain.evidence import TOP
from coordinator.measure import PeerMeasurements
from coordinator.routing.head import load_head
from coordinator.routing.router import Router
from node.engine.base import EngineRequest, Generated, TokenLikelihood
from node.hosting.encoder import MiniLmEncoder
from node.hosting.hosted import HostedModel, HostedSpec, host_adapter, load_model
from node.training.domains.catalogue import NAMES, own_domain
from protocols.ids import PeerId
from protocols.messages.ask import ChatMessage, Sampling, Text
from routing_outcomes import SPECIALISTS, shipped_cards

AT_ONCE = 16
"""Prompts."""


class Answer(Struct, frozen=True):
    """What `specialist` said to prompt `number` of `domain`: fp64 nats of each of its tokens.

    `own` is how likely it found them itself, `next_best` the likeliest other token in their places,
    `base` how likely the plain base finds them.
    """

    specialist: str
    domain: str
    number: int
    own: list[float]
    next_best: list[float]
    base: list[float]


class Routing(Struct, frozen=True):
    """What the router says of prompt `number` of `domain`: specialists by falling probability."""

    domain: str
    number: int
    ranked: list[tuple[str, float]]

    @property
    def rival(self) -> str:
        """Whom the router likes best but for the specialist of the domain."""
        return next(name for name, _ in self.ranked if name != self.domain)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A prompt of the validation part of a domain."""

    domain: str
    number: int
    prompt: str


def drawn_prompts(data: Path, count: int, seed: int) -> list[Drawn]:
    """`count` of each domain, by chance."""
    drawn: list[Drawn] = []
    for name in NAMES:
        prompts = [one.prompt for one in own_domain(data, name).validation]
        rows = np.random.default_rng(seed).permutation(len(prompts))[:count]
        drawn += [Drawn(name, int(row), prompts[row]) for row in rows]
    return drawn


async def routed(prompts: Sequence[Drawn], encoder: MiniLmEncoder) -> list[Routing]:
    """The router's scores with the cards that ship."""
    router = Router(encoder, PeerMeasurements(PeerId("me")), head=load_head())
    cards = await shipped_cards(encoder)
    found: list[Routing] = []
    for one in prompts:
        plan = await router.plan(Text(one.prompt), cards, 0.0)
        ranked = [(str(score.specialist), score.score) for score in plan.scores]
        found.append(Routing(one.domain, one.number, ranked))
    return found


async def answers(
    setting: HostedSpec, prompts: Sequence[Drawn], routings: Sequence[Routing], tokens: int
) -> list[Answer]:
    """By the right specialist and by the one that a doubt would ask, greedy, of `tokens` at most.

    The latter is whom the router likes best among the others.
    """
    base = await load_model(setting)
    try:
        hosted = {name: await host_adapter(base, name, SPECIALISTS / name) for name in NAMES}
        found: list[Answer] = []
        pairs = list(zip(prompts, routings, strict=True))
        for start in range(0, len(pairs), AT_ONCE):
            found += await asyncio.gather(
                *(
                    _answer(name, hosted[name], base, asked, tokens)
                    for asked, routing in pairs[start : start + AT_ONCE]
                    for name in (asked.domain, routing.rival)
                )
            )
            print(f"{len(found)} answers", file=sys.stderr, flush=True)
        return found
    finally:
        await base.close()


async def _answer(
    name: str, specialist: HostedModel, base: HostedModel, asked: Drawn, tokens: int
) -> Answer:
    tokenizer = specialist.tokenizer
    prompt = tokenizer.encode_chat((ChatMessage("user", asked.prompt),))
    prompt = prompt[: base.context_length - tokens]
    sampling = Sampling(logprobs=TOP)
    request = EngineRequest("answer", prompt, tokens, sampling, tokenizer.stop_ids)
    said = await _generated(specialist, request)
    ids = tuple(token for token, _ in said)
    own = [found.logprob for _, found in said]
    forced = EngineRequest("score", prompt, len(ids), Sampling(), frozenset(), forced=ids)
    by_base = [found.logprob for _, found in await _generated(base, forced)] if ids else []
    rivals = [_next_best(token, found) for token, found in said]
    return Answer(name, asked.domain, asked.number, own, rivals, by_base)


async def _generated(
    model: HostedModel, request: EngineRequest
) -> list[tuple[int, TokenLikelihood]]:
    generation = model.generate(request)
    said: list[tuple[int, TokenLikelihood]] = []
    while isinstance(output := await generation.next(), Generated):
        assert output.likelihood is not None
        said.append((output.token_id, output.likelihood))
    return said


def _next_best(token: int, found: TokenLikelihood) -> float:
    others = (one.logprob for one in found.top if one.token_id != token)
    return max(others, default=found.logprob)
