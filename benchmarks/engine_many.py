"""Rows of many requests: batches, shared prefixes, adapters, and answers that are guessed ahead.

Knows what is asked of the engine; its baseline is always itself.
"""

import statistics
from itertools import chain

from engine_child import Adapted, Child, Continue, Mixed, Result, SharedPrefix
from engine_setting import Compared, Missing, Precision, Setting, Target
from report import Row
from samples import alternate, percentile

LENGTHS = (
    (16, 24), (96, 40), (200, 16), (32, 64), (64, 48), (128, 24), (24, 56), (256, 32),
    (48, 40), (80, 64), (16, 48), (160, 32), (40, 24), (112, 56), (72, 40), (20, 64),
)  # fmt: skip
"""Prompt and answer of each of 16 requests."""
CONCURRENT = {"bf16": Target(5), "int4": Target(2.5)}
PRECISIONS: tuple[Precision, ...] = ("bf16", "int4")
PREFIX = Target(0.05, is_most=True)
SHARED, OWN = 1000, 8
REPEATING = {"bf16": Target(2), "int4": Target(1.5)}
OTHER = Target(0.97)
TO_REPEAT = """Copy this list of parts exactly, line by line, and write nothing else:
- 4 wheels, steel, 12 inch, with rubber tyres
- 2 axles, steel, 40 inch, with bearings
- 1 frame, oak, 60 by 30 inch, painted green
- 16 bolts, brass, 3 inch, with washers
- 8 brackets, steel, 5 inch, with 4 holes
- 1 handle, ash, 36 inch, turned and oiled
- 2 boards, pine, 58 by 14 inch, planed
- 24 nails, iron, 2 inch, with flat heads"""
TO_INVENT = "Tell me a strange story of a clockmaker, a whale and a letter that nobody wrote."
ADAPTED = {"shared A, rank 32": Target(0.8), "ordinary, rank 16": Target(0.6)}


def concurrent(setting: Setting) -> list[Row]:
    """All tokens over all time, reading of prompts included: sixteen at once, or one by one."""
    lengths = LENGTHS[:4] if setting.is_quick else LENGTHS
    rows: list[Row] = []
    for precision in PRECISIONS:
        with setting.ours(precision) as ours:
            ours.ask(Mixed(lengths[:4], is_together=True))
            together: list[Result] = []
            single: list[Result] = []
            for _ in range(setting.rounds):
                together.append(ours.ask(Mixed(lengths, is_together=True)))
                single.append(ours.ask(Mixed(lengths, is_together=False)))
            note = ours.ready.version
        rows += concurrent_rows(precision, together, single, note)
    return rows


def concurrent_rows(
    precision: str, together: list[Result], single: list[Result], note: str
) -> list[Row]:
    """Throughput, and how long the unluckiest waited for the first token."""
    both = Compared([one.rate for one in together], [one.rate for one in single])
    target = CONCURRENT[precision]
    waits = list(chain.from_iterable(one.first_seconds for one in together))
    name = f"{len(LENGTHS)} requests, {precision}"
    alone = Row(f"{name}: one by one", statistics.median(both.theirs), "tokens/s")
    return [
        alone,
        Row(
            f"{name}: at once",
            statistics.median(both.ours),
            "tokens/s",
            "one by one",
            both.ratio,
            str(target),
            target.met(both.ratio),
            f"{both.note}; {note}",
        ),
        Row(f"{name}: time to first token, median", statistics.median(waits), "s"),
        Row(f"{name}: time to first token, p95", percentile(waits, 0.95), "s"),
    ]


def prefix(setting: Setting) -> list[Row]:
    """A second request that begins as the first did, against the first."""
    rows: list[Row] = []
    for precision in PRECISIONS:
        with setting.ours(precision) as ours:
            found = [ours.ask(SharedPrefix(SHARED, OWN)) for _ in range(setting.rounds)]
            note = ours.ready.version
        both = Compared(
            [one.first_seconds[1] for one in found], [one.first_seconds[0] for one in found]
        )
        name = f"time to first token, {SHARED} tokens shared, {precision}"
        rows += [
            Row(f"{name}: cold", 1e3 * statistics.median(both.theirs), "ms"),
            Row(
                f"{name}: second request",
                1e3 * statistics.median(both.ours),
                "ms",
                "cold",
                both.ratio,
                str(PREFIX),
                PREFIX.met(both.ratio),
                f"{both.note}; {note}",
            ),
        ]
    return rows


def speculation(setting: Setting) -> list[Row]:
    """With guesses against without, on text that repeats its input and on text that does not."""
    tokens = setting.tokens(128)
    rows: list[Row] = []
    for precision in PRECISIONS:
        with (
            setting.ours(precision) as plain,
            setting.ours(precision, speculation="auto") as guessing,
        ):
            require(plain, "Continue")
            for text, order, target in (
                ("repeats", Continue(TO_REPEAT, tokens, 0.0), REPEATING[precision]),
                ("does not repeat", Continue(TO_INVENT, tokens, 1.0), OTHER),
            ):
                found = _both_ways(plain, guessing, order, setting.rounds)
                note = f"{found.note}; {guessing.ready.version}"
                name = f"text that {text}, {precision}"
                rows += versus(f"speculation, {name}", "plain", found, target, note)
    return rows


def _both_ways(plain: Child, guessing: Child, order: Continue, rounds: int) -> Compared:
    for one in (plain, guessing):
        one.ask(order)
    found = alternate(
        {"ours": lambda: guessing.ask(order).rate, "plain": lambda: plain.ask(order).rate}, rounds
    )
    return Compared(found["ours"], found["plain"])


def versus(name: str, baseline: str, found: Compared, target: Target, note: str) -> list[Row]:
    """The baseline's throughput, then ours with the ratio."""
    return [
        Row(f"{name}: {baseline}", statistics.median(found.theirs), "tokens/s"),
        Row(
            name,
            statistics.median(found.ours),
            "tokens/s",
            baseline,
            found.ratio,
            str(target),
            target.met(found.ratio),
            note,
        ),
    ]


def adapters(setting: Setting) -> list[Row]:
    """32 requests that decode together, four on each of eight adapters, against none on any."""
    tokens = setting.tokens(32)
    rows: list[Row] = []
    orders = {
        "shared A, rank 32": Adapted(8, 32, 32, True, 16, tokens),
        "ordinary, rank 16": Adapted(8, 32, 16, False, 16, tokens),
    }
    for precision in PRECISIONS:
        with setting.ours(precision) as ours:
            require(ours, "Adapted")
            for name, order in orders.items():
                bare = Adapted(0, 32, 0, False, 16, tokens)
                ours.ask(order)
                ours.ask(bare)
                found = alternate(
                    {
                        "ours": lambda order=order: ours.ask(order).rate,  # type: ignore[misc]
                        "none": lambda bare=bare: ours.ask(bare).rate,  # type: ignore[misc]
                    },
                    setting.rounds,
                )
                both = Compared(found["ours"], found["none"])
                note = f"{both.note}; {ours.ready.version}"
                full = f"32 requests over 8 adapters, {name}, {precision}"
                rows += versus(full, "without", both, ADAPTED[name], note)
    return rows


def require(ours: Child, order: str) -> None:
    """`Missing` if this version of the engine cannot do it."""
    if order in ours.ready.lacks:
        raise Missing(f"not available: {ours.ready.lacks[order]}")
