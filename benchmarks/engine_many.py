"""Rows of many requests: batches, shared prefixes, adapters, and answers that are guessed ahead.

Knows what is asked of the engine; its baseline is always itself.
"""

import statistics
from collections.abc import Iterator, Sequence
from functools import partial

from engine_child import Adapted, Child, Continue, Mixed, Order, SharedPrefix
from engine_setting import PRECISIONS, Compared, Precision, Setting, Target
from report import Row
from samples import alternate, percentile

LENGTHS = (
    (16, 24), (96, 40), (200, 16), (32, 64), (64, 48), (128, 24), (24, 56), (256, 32),
    (48, 40), (80, 64), (16, 48), (160, 32), (40, 24), (112, 56), (72, 40), (20, 64),
)  # fmt: skip
"""Prompt and answer of each of 16 requests."""
CONCURRENT = {"bf16": Target(5), "int4": Target(2.5)}
PREFIX = Target(0.05, is_most=True)
SHARED, OWN = 1000, 8
REPEATING = {"bf16": Target(2), "int4": Target(1.5)}
OTHER = Target(0.97)
PARTS = (
    "wheels, steel, 12 inch, with rubber tyres",
    "axles, steel, 40 inch, with bearings",
    "frames, oak, 60 by 30 inch, painted green",
    "bolts, brass, 3 inch, with washers",
    "brackets, steel, 5 inch, with 4 holes",
    "handles, ash, 36 inch, turned and oiled",
    "boards, pine, 58 by 14 inch, planed",
    "nails, iron, 2 inch, with flat heads",
)
HEROES = ("a clockmaker", "a whale", "a tax collector", "two sisters", "an old bridge", "a fox")
SHARED_A = Target(0.8)
ORDINARY = Target(0.6)


def concurrent(setting: Setting) -> list[Row]:
    """All tokens over all time, reading of prompts included: sixteen at once, or one by one."""
    return [row for precision in PRECISIONS for row in _concurrent(setting, precision)]


def _concurrent(setting: Setting, precision: Precision) -> list[Row]:
    lengths = LENGTHS[:4] if setting.is_quick else LENGTHS
    waits: list[float] = []

    def together() -> float:
        result = ours.ask(Mixed(lengths, is_together=True))
        waits.extend(result.first_seconds)
        return result.rate

    with setting.ours(precision) as ours:
        ours.ask(Mixed(lengths[:4], is_together=True))
        found = alternate(
            {
                "ours": together,
                "theirs": lambda: ours.ask(Mixed(lengths, is_together=False)).rate,
            },
            setting.rounds,
        )
    name = f"{len(lengths)} requests at once, {precision}"
    return [
        *Compared(**found).rows(name, "one by one", "tokens/s", CONCURRENT[precision]),
        Row(f"{name}: time to first token, median", statistics.median(waits), "s"),
        Row(f"{name}: time to first token, p95", percentile(waits, 0.95), "s"),
    ]


def prefix(setting: Setting) -> list[Row]:
    """A second request that begins as the first did, against the first."""
    rows: list[Row] = []
    shared = setting.tokens(SHARED)
    for precision in PRECISIONS:
        with setting.ours(precision) as ours:
            found = [ours.ask(SharedPrefix(shared, OWN)) for _ in range(setting.rounds)]
        cold, second = zip(*(one.first_seconds for one in found), strict=True)
        both = Compared([1e3 * one for one in second], [1e3 * one for one in cold])
        name = f"time to first token, {shared} tokens shared, {precision}"
        rows += both.rows(name, "cold", "ms", PREFIX)
    return rows


def to_repeat(number: int, tokens: int) -> Continue:
    """A list to copy, another one for each number: what was answered before must not help."""
    turned = PARTS[number % len(PARTS) :] + PARTS[: number % len(PARTS)]
    lines = [f"- {3 + (7 * row + number) % 20} {part}" for row, part in enumerate(turned)]
    asked = "Copy this list of parts exactly, line by line, and write nothing else:"
    return Continue("\n".join([asked, *lines]), tokens, 0.0, number)


def to_invent(number: int, tokens: int) -> Continue:
    """A story, another one for each number."""
    hero = HEROES[number % len(HEROES)]
    asked = f"Tell me a strange story of {hero} and of a letter that nobody wrote."
    return Continue(asked, tokens, 1.0, number)


def speculation(setting: Setting) -> list[Row]:
    """With guesses against without, on text that repeats its input and on text that does not."""
    tokens = setting.tokens(128)
    rows: list[Row] = []
    for precision in PRECISIONS:
        with (
            setting.ours(precision) as plain,
            setting.ours(precision, speculation="auto") as guessing,
        ):
            for text, order, target in (
                ("repeats its input", to_repeat, REPEATING[precision]),
                ("does not", to_invent, OTHER),
            ):
                orders = [order(number, tokens) for number in range(setting.rounds + 1)]
                both = in_turn((guessing, orders), (plain, orders))
                name = f"speculation, text that {text}, {precision}"
                rows += both.rows(name, "plain", "tokens/s", target)
    return rows


def adapters(setting: Setting) -> list[Row]:
    """32 requests that decode together, four on each of eight adapters, against none on any."""
    tokens = setting.tokens(32)
    bare = Adapted(0, 32, 0, False, 16, tokens)
    rows: list[Row] = []
    for precision in PRECISIONS:
        with setting.ours(precision) as ours:
            for kind, order, target in (
                ("shared A, rank 32", Adapted(8, 32, 32, True, 16, tokens), SHARED_A),
                ("ordinary, rank 16", Adapted(8, 32, 16, False, 16, tokens), ORDINARY),
            ):
                times = setting.rounds + 1
                both = in_turn((ours, [order] * times), (ours, [bare] * times))
                name = f"32 requests over 8 adapters, {kind}, {precision}"
                rows += both.rows(name, "no adapters", "tokens/s", target)
    return rows


def in_turn(one: tuple[Child, Sequence[Order]], other: tuple[Child, Sequence[Order]]) -> Compared:
    """Throughput of two series of orders, a round for each; the first is the warm-up."""

    def rate(who: Child, orders: Iterator[Order]) -> float:
        return who.ask(next(orders)).rate

    ways = {
        name: partial(rate, who, iter(orders))
        for name, (who, orders) in {"ours": one, "theirs": other}.items()
    }
    alternate(ways, 1)
    return Compared(**alternate(ways, len(one[1]) - 1))
