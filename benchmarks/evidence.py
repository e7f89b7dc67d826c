"""Does what an answer costs a specialist, or gains on the base, tell whether it is the right one?

Method: prompts of the validation part of each domain (`node/training/domains`), in the domains' own
style. Each is answered greedily, by the specialist of its domain and by the one that a doubt would
ask instead: whom the router, with the cards that ship, likes best among the others. Then the base
tells how likely it finds the same tokens (forced, without the adapter). Over the first tokens, as
many as a chain judges, these figures are compared as signs that the specialist is the right one:

    card       own mean log-probability, less the bound of the card (what chains judge by)
    own        own mean log-probability
    gain       own less the base's mean log-probability (`router.doubt = "base"`)
    share      1 - own / base: the share of the base's nats that the specialist saves
    margin     own log-probability less that of the next best token

AUROC over all answers, and over the answers of the router's first choice alone. Then the rules: of
how many prompts has the right specialist the last word, if the router's first choice begins, an
answer under the bound is doubted, and the surer of the two stays. Brackets are 95 % bootstraps over
prompts. That a specialist is the right one does not say that its answer is.

Run: `.venv/bin/python benchmarks/evidence.py --data DIR [--prompts N] [--tokens N] [--precision P]
[--threads N] [--keep FILE] [--from FILE]`; `--keep` writes the likelihoods, `--from` reads them.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from coordinator.chain.contest import HELD_TOKENS
from coordinator.chain.evidence import (
    FLOOR,
    FLOOR_HIGHEST,
    GAIN_MIN,
    LEAD_MAX,
    METRIC,
)
from engine_build import precision_of, spec_of
from evidence_answers import Answer, Routing, answers, drawn_prompts, routed
from node.card_file import read_card_file
from node.config import DEFAULT_MODEL, environment
from node.config_reader import Overrides, load_process_config
from node.hosting.fetch import resolve
from node.hosting.startup import load_encoder
from protocols.errors import UserError
from report import Row, print_report
from routing_measures import RESAMPLES, Array, Interval, Rows, auroc
from routing_outcomes import SPECIALISTS

OWN, BASE, NEXT, CHANCE, FLOOR_OF = range(5)
"""Columns: means over the first tokens, the router's probability, the bound of the card."""
Mask = NDArray[np.bool_]
Figure = Callable[[Array], Array]
Doubt = Callable[[Array], Mask]
FIGURES: dict[str, Figure] = {
    "card": lambda x: x[:, OWN] - x[:, FLOOR_OF],
    "own": lambda x: x[:, OWN],
    "gain": lambda x: x[:, OWN] - x[:, BASE],
    "share": lambda x: 1 - x[:, OWN] / np.minimum(x[:, BASE], -1e-3),
    "margin": lambda x: x[:, OWN] - x[:, NEXT],
}


class Kept(msgspec.Struct, frozen=True):
    """What was measured."""

    answers: list[Answer]
    routings: list[Routing]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A row a prompt: `right` by the specialist of its domain, `rival` by the other one."""

    right: Array
    rival: Array

    @property
    def is_first_right(self) -> Mask:
        """Whether the router likes the right one better."""
        return np.asarray(self.right[:, CHANCE] > self.rival[:, CHANCE])

    def of(self, rows: Rows) -> "Pairs":
        """Some of the prompts."""
        return Pairs(self.right[rows], self.rival[rows])


def pairs_of(kept: Kept, tokens: int) -> Pairs:
    """Prompts to which both said something, over the first `tokens` tokens."""
    chances = {(one.domain, one.number): dict(one.ranked) for one in kept.routings}
    floors = {one.specialist: _floor(one.specialist) for one in kept.answers}
    found: dict[tuple[str, int], dict[bool, list[float]]] = {}
    for one in kept.answers:
        if one.own:
            means = [float(np.mean(part[:tokens])) for part in (one.own, one.base, one.next_best)]
            chance = chances[one.domain, one.number].get(one.specialist, 0.0)
            row = [*means, chance, floors[one.specialist]]
            found.setdefault((one.domain, one.number), {})[one.specialist == one.domain] = row
    whole = [rows for rows in found.values() if len(rows) == 2]
    return Pairs(np.array([rows[True] for rows in whole]), np.array([r[False] for r in whole]))


def over_all(pairs: Pairs, figure: Figure) -> float:
    """AUROC of right answers against wrong ones."""
    return auroc(figure(pairs.right), figure(pairs.rival))


def over_first(pairs: Pairs, figure: Figure) -> float:
    """The same among the answers of those whom the router likes best."""
    right = pairs.is_first_right
    return auroc(figure(pairs.right[right]), figure(pairs.rival[~right]))


def is_under_card(first: Array) -> Mask:
    """Whose words cost more than those of good answers, as its card says."""
    return np.asarray(FIGURES["card"](first) < 0)


def gains_little(first: Array) -> Mask:
    """Whose words the base finds nearly as likely."""
    return np.asarray(FIGURES["gain"](first) < GAIN_MIN)


def never(pairs: Pairs) -> float:
    """The share of prompts whose last word the right one has, if nobody is doubted."""
    return float(pairs.is_first_right.mean())


def by_card(pairs: Pairs) -> float:
    """The same if answers under their card's bound are doubted, and the surer one stays."""
    return float(_settled(pairs, is_under_card, "own").mean())


def by_card_where_close(pairs: Pairs) -> float:
    """The same, but nobody is doubted of whom the router is sure."""
    return float(_where_close(pairs, _settled(pairs, is_under_card, "own")).mean())


def by_base(pairs: Pairs) -> float:
    """The same if the base decides where the router is unsure, and nobody is doubted elsewhere."""
    return float(_where_close(pairs, _settled(pairs, gains_little, "gain")).mean())


def _where_close(pairs: Pairs, settled: Mask) -> Mask:
    first, second = _in_turn(pairs)
    is_close = first[:, CHANCE] - second[:, CHANCE] < LEAD_MAX
    return np.where(is_close, settled, pairs.is_first_right)


def by_gain_alone(pairs: Pairs) -> float:
    """The same if all answers that gain little on the base are doubted, however sure the router."""
    return float(_settled(pairs, gains_little, "gain").mean())


def interval(pairs: Pairs, value: Callable[[Pairs], float]) -> Interval:
    """`value`, and the middle 95 % of it over prompts drawn again."""
    rng = np.random.default_rng(0)
    size = len(pairs.right)
    drawn = [value(pairs.of(rng.integers(size, size=size))) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Interval(value(pairs), float(low), float(high))


def rows_of(pairs: Pairs) -> list[Row]:
    """The table."""
    rows = []
    for name, figure in FIGURES.items():
        for where, measure in (("all", over_all), ("first choices", over_first)):
            found = interval(pairs, partial(measure, figure=figure))
            less = interval(pairs, partial(_over_card, measure=measure, figure=figure))
            note = f"{found}; {less} over card"
            rows.append(Row(f"AUROC {name}, {where}", found.value, "", note=note))
    for name, rule in (
        ("nobody", never),
        ("by the card, however sure the router is", by_card),
        ("by the card where the router is unsure", by_card_where_close),
        ("by the base where the router is unsure", by_base),
        ("by the base alone", by_gain_alone),
    ):
        found, more = interval(pairs, rule), interval(pairs, partial(_gained, rule=rule))
        rows.append(Row(f"right, doubted: {name}", found.value, "", note=f"{found}; {more} gained"))
    return rows


def _over_card(pairs: Pairs, measure: Callable[[Pairs, Figure], float], figure: Figure) -> float:
    return measure(pairs, figure) - measure(pairs, FIGURES["card"])


def _gained(pairs: Pairs, rule: Callable[[Pairs], float]) -> float:
    return rule(pairs) - never(pairs)


def _in_turn(pairs: Pairs) -> tuple[Array, Array]:
    right = pairs.is_first_right[:, None]
    return (
        np.where(right, pairs.right, pairs.rival),
        np.where(right, pairs.rival, pairs.right),
    )


def _settled(pairs: Pairs, doubt: Doubt, surer_by: str) -> Mask:
    """For each prompt whether the right one has the last word."""
    first, second = _in_turn(pairs)
    surer = FIGURES[surer_by]
    is_replaced = doubt(first) & np.asarray(surer(second) > surer(first))
    return np.asarray(pairs.is_first_right != is_replaced)


def _floor(name: str) -> float:
    """As `floor_of` of one card."""
    scores = read_card_file(SPECIALISTS / name / "card.toml").scores
    said = sorted(
        max(FLOOR, min(FLOOR_HIGHEST, -one.score)) for one in scores if one.metric == METRIC
    )
    return said[len(said) // 2] if said else FLOOR


async def _measured(options: argparse.Namespace) -> Kept:
    paths = load_process_config(Overrides()).config.paths
    encoder = await load_encoder(paths.models)
    if encoder is None:
        raise UserError("The router needs its sentence encoder: dslm setup fetches it.")
    prompts = drawn_prompts(options.data, options.prompts, 0)
    routings = await routed(prompts, encoder)
    precision = precision_of(options.precision)
    setting = spec_of(resolve(DEFAULT_MODEL, paths.models), precision, options.threads, "off")
    return Kept(await answers(setting, prompts, routings, options.tokens), routings)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="what tells right from wrong specialists")
    folder = environment().get("DSLM_DATA")
    parser.add_argument("--data", type=Path, default=Path(folder) if folder else None)
    parser.add_argument("--prompts", type=int, default=30, help="of each domain")
    parser.add_argument("--tokens", type=int, default=32, help="most tokens of an answer")
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="2 prompts of each domain")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--from", type=Path, dest="source")
    options = parser.parse_args(arguments)
    if options.quick:
        options.prompts = 2
    if options.data is None and options.source is None:
        parser.error("--data or DSLM_DATA says where the sets are")
    return options


def main(arguments: Sequence[str]) -> int:
    """Measure or read, then print."""
    options = _options(arguments)
    if options.source is not None:
        kept = msgspec.json.decode(options.source.read_bytes(), type=Kept)
    else:
        kept = asyncio.run(_measured(options))
    if options.keep is not None:
        options.keep.write_bytes(msgspec.json.encode(kept))
    pairs = pairs_of(kept, HELD_TOKENS)
    mean_length = float(np.mean([len(one.own) for one in kept.answers]))
    about = [
        f"{len(pairs.right)} prompts of {len({one.domain for one in kept.answers})} domains",
        f"the first {HELD_TOKENS} tokens of answers that have {mean_length:.1f}",
    ]
    return print_report("evidence", rows_of(pairs), about)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
