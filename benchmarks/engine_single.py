"""Rows of one request at a time: decoding, reading a prompt, and what Python costs between kernels.

Knows the baselines; must not know how they are run.
"""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from engine_child import Child, Decode, Overhead, Prefill, Result, Through
from engine_llama_cpp import LlamaCpp, version
from engine_setting import (
    PRECISIONS,
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
PYTHON = Target(0.15, is_most=True)


def decode_int4(setting: Setting) -> list[Row]:
    """Against llama.cpp with the same file, on all cores."""
    return _decode_int4(setting, cores())


def decode_int4_one_thread(setting: Setting) -> list[Row]:
    """The same with one thread."""
    return _decode_int4(setting, 1)


def _decode_int4(setting: Setting, threads: int) -> list[Row]:
    require_llama_cpp()
    llama = LlamaCpp(setting.model, threads)
    tokens = setting.tokens(ANSWER)
    variant = llama.best("-n", 16)
    setting.tell(f"{version()}; answers of {threads} threads with {variant}")
    with setting.ours("int4", threads) as ours:
        found = alternate(
            {
                "ours": lambda: ours.ask(Decode(CONTEXT, tokens)).rate,
                "theirs": lambda: llama.rate("-n", tokens, variant),
            },
            setting.rounds,
        )
    name = f"decode, batch 1, int4, {threads} threads"
    return Compared(**found).rows(name, "llama.cpp", "tokens/s", INT4_DECODE)


def decode_bf16(setting: Setting) -> list[Row]:
    """Against `generate`."""
    tokens = setting.tokens(ANSWER // 2)
    with setting.transformers() as theirs, setting.ours("bf16") as ours:
        found = alternate(
            {
                "ours": lambda: ours.ask(Decode(CONTEXT, tokens)).rate,
                "theirs": lambda: theirs.ask(Decode(CONTEXT, tokens)).rate,
            },
            setting.rounds,
        )
    name = "decode, batch 1, bf16"
    return Compared(**found).rows(name, "transformers", "tokens/s", BF16_DECODE)


def prefill(setting: Setting) -> list[Row]:
    """Against the better of llama.cpp and transformers; ours in both precisions."""
    tokens = setting.tokens(PROMPT)
    with ExitStack() as stack:
        children = {"transformers": stack.enter_context(setting.transformers())}
        for precision in PRECISIONS:
            children[precision] = stack.enter_context(setting.ours(precision))
        ways: dict[str, Callable[[], float]] = {
            name: partial(_prefill_rate, one, tokens) for name, one in children.items()
        }
        try:
            require_llama_cpp()
        except Missing as reason:
            setting.tell(str(reason))
        else:
            llama = LlamaCpp(setting.model, cores())
            variant = llama.best("-p", 64)
            setting.tell(f"{version()}; prompts with {variant}")
            ways["llama.cpp"] = partial(llama.rate, "-p", tokens, variant)
        found = alternate(ways, setting.rounds)
    return prefill_rows(found, tokens)


def _prefill_rate(one: Child, tokens: int) -> float:
    return one.ask(Prefill(tokens)).rate


def prefill_rows(found: dict[str, list[float]], tokens: int) -> list[Row]:
    """All baselines, then ours against the better one."""
    medians = {
        name: statistics.median(values) for name, values in found.items() if name not in PRECISIONS
    }
    best = max(medians, key=lambda name: medians[name])
    rows = [
        Row(f"prefill, {tokens} tokens: {name}", rate, "tokens/s") for name, rate in medians.items()
    ]
    for precision in PRECISIONS:
        both = Compared(found[precision], found[best])
        name = f"prefill, {tokens} tokens, {precision}"
        rows += both.rows(name, best, "tokens/s", PREFILL)[1:]
    return rows


def overhead(setting: Setting) -> list[Row]:
    """Where a decode step's time goes, and what the thread of a node adds to it."""
    return [row for precision in PRECISIONS for row in _overhead(setting, precision)]


def _overhead(setting: Setting, precision: Precision) -> list[Row]:
    tokens = setting.tokens(ANSWER // 2)
    with setting.ours(precision) as ours:
        found = alternate(
            {
                "share": lambda: python_share(ours.ask(Overhead(CONTEXT, tokens))),
                "step": lambda: 1e3 / ours.ask(Decode(CONTEXT, tokens)).rate,
                "through": lambda: 1e3 / ours.ask(Through(CONTEXT, tokens)).rate,
            },
            setting.rounds,
        )
    return overhead_rows(precision, found)


def python_share(result: Result) -> float:
    """What is left of a step's time without native calls; 0 if profiling made those longer."""
    return max(0.0, 1 - result.native_seconds / result.seconds)


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
            str(PYTHON),
            PYTHON.met(share),
        ),
        Row(
            f"decode step through the node's thread, {precision}",
            statistics.median(through.ours),
            "ms",
            "the step alone",
            through.ratio,
        ),
    ]
