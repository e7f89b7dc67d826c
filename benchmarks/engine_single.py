"""Rows of one request at a time: decoding, reading a prompt, and what Python costs between kernels.

Knows the baselines; must not know how they are run.
"""

import statistics
from contextlib import ExitStack

from engine_child import Decode, Overhead, Prefill, Result, Through
from engine_llama_cpp import LlamaCpp, Variant, version
from engine_setting import (
    NO_LLAMA_CPP,
    Compared,
    Missing,
    Precision,
    Setting,
    Target,
    cores,
    require_llama_cpp,
)
from report import Row
from samples import alternate

PROMPT = 512
ANSWER = 128
CONTEXT = 16
"""Tokens before an answer; llama-bench answers from an empty context."""
INT4_DECODE = Target(1.1)
BF16_DECODE = Target(2.5)
PREFILL = Target(1.2)
PYTHON_MOST = 0.15


def decode_int4(setting: Setting) -> list[Row]:
    """Against llama.cpp with the same file, on all cores and on one."""
    require_llama_cpp()
    counts = sorted({cores(), 1}, reverse=True)
    return [row for threads in counts for row in _decode_int4(setting, threads)]


def _decode_int4(setting: Setting, threads: int) -> list[Row]:
    llama = LlamaCpp(setting.model, threads)
    tokens = setting.tokens(ANSWER)
    variant = llama.best("-n", 32)
    with setting.ours("int4", threads) as ours:
        found = alternate(
            {
                "ours": lambda: ours.ask(Decode(CONTEXT, tokens)).rate,
                "llama.cpp": lambda: llama.rate("-n", tokens, variant),
            },
            setting.rounds,
        )
        made = ours.ready.version
    name = f"decode, batch 1, int4, {threads} threads"
    return compared_rows(name, "llama.cpp", found, INT4_DECODE, f"{made}; {version()}, {variant}")


def decode_bf16(setting: Setting) -> list[Row]:
    """Against `generate`."""
    tokens = setting.tokens(ANSWER // 2)
    with setting.transformers() as theirs, setting.ours("bf16") as ours:
        found = alternate(
            {
                "ours": lambda: ours.ask(Decode(CONTEXT, tokens)).rate,
                "transformers": lambda: theirs.ask(Decode(CONTEXT, tokens)).rate,
            },
            setting.rounds,
        )
        note = f"{ours.ready.version}; {theirs.ready.version}"
    return compared_rows("decode, batch 1, bf16", "transformers", found, BF16_DECODE, note)


def compared_rows(
    name: str, baseline: str, found: dict[str, list[float]], target: Target, note: str
) -> list[Row]:
    """The baseline's figure, then ours with the ratio."""
    both = Compared(found["ours"], found[baseline])
    theirs = Row(f"{name}: {baseline}", statistics.median(both.theirs), "tokens/s")
    ours = Row(
        name,
        statistics.median(both.ours),
        "tokens/s",
        baseline,
        both.ratio,
        str(target),
        target.met(both.ratio),
        f"{both.note}; {note}",
    )
    return [theirs, ours]


def prefill(setting: Setting) -> list[Row]:
    """Against the better of llama.cpp and transformers; ours in both precisions."""
    tokens = setting.tokens(PROMPT)
    with ExitStack() as stack:
        theirs = stack.enter_context(setting.transformers())
        ways = {"transformers": lambda: theirs.ask(Prefill(tokens)).rate}
        note = theirs.ready.version
        try:
            require_llama_cpp()
        except Missing:
            note += f"; {NO_LLAMA_CPP}"
        else:
            llama = LlamaCpp(setting.model, cores())
            variant: Variant = llama.best("-p", 128)
            ways["llama.cpp"] = lambda: llama.rate("-p", tokens, variant)
            note += f"; {version()}, {variant}"
        precisions: tuple[Precision, ...] = ("int4", "bf16")
        for precision in precisions:
            ours = stack.enter_context(setting.ours(precision))
            ways[precision] = lambda ours=ours: ours.ask(Prefill(tokens)).rate  # type: ignore[misc]
        found = alternate(ways, setting.rounds)
    return prefill_rows(found, note)


def prefill_rows(found: dict[str, list[float]], note: str) -> list[Row]:
    """All baselines, then ours against the better one."""
    medians = {name: statistics.median(values) for name, values in found.items()}
    baselines = [name for name in ("transformers", "llama.cpp") if name in found]
    best = max(baselines, key=lambda name: medians[name])
    rows = [Row(f"prefill, {PROMPT} tokens: {one}", medians[one], "tokens/s") for one in baselines]
    for precision in ("int4", "bf16"):
        both = Compared(found[precision], found[best])
        rows.append(
            Row(
                f"prefill, {PROMPT} tokens, {precision}",
                medians[precision],
                "tokens/s",
                best,
                both.ratio,
                str(PREFILL),
                PREFILL.met(both.ratio),
                f"{both.note}; {note}",
            )
        )
    return rows


def overhead(setting: Setting) -> list[Row]:
    """Where a decode step's time goes, and what the thread of a node adds to it."""
    rows: list[Row] = []
    tokens = setting.tokens(ANSWER // 2)
    precisions: tuple[Precision, ...] = ("int4", "bf16")
    for precision in precisions:
        with setting.ours(precision) as ours:
            found = alternate(
                {
                    "share": lambda: _python_share(ours.ask(Overhead(CONTEXT, tokens))),
                    "step": lambda: 1e3 / ours.ask(Decode(CONTEXT, tokens)).rate,
                    "through": lambda: 1e3 / ours.ask(Through(CONTEXT, tokens)).rate,
                },
                setting.rounds,
            )
        rows += overhead_rows(precision, found)
    return rows


def _python_share(result: Result) -> float:
    return 1 - result.native_seconds / result.seconds


def overhead_rows(precision: str, found: dict[str, list[float]]) -> list[Row]:
    """The share of Python, the step, and the step as a node's clients see it."""
    share = statistics.median(found["share"])
    through = Compared(found["through"], found["step"])
    return [
        Row(f"decode step, {precision}", statistics.median(found["step"]), "ms"),
        Row(
            f"our Python between kernels, decode {precision}",
            100 * share,
            "%",
            "of the step",
            share,
            f"at most {PYTHON_MOST:g}x",
            share <= PYTHON_MOST,
        ),
        Row(
            f"decode step through the node's thread, {precision}",
            statistics.median(through.ours),
            "ms",
            "the step alone",
            through.ratio,
        ),
    ]
