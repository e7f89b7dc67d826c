"""Rows of memory and of what it costs in quality, and the rows that need another device.

Knows sizes and perplexities; must not know how they are measured.
"""

from pathlib import Path

from engine_child import Forced, Ready
from engine_setting import Setting, Target
from node.hosting.precisions import measure_precisions
from report import Row

RESIDENT = Target(0.38, is_most=True)
PERPLEXITY = Target(1.01, is_most=True)
NOMINAL_BF16 = 269e6
"""Bytes: two for each of 134.5 million weights."""
WINDOW = 512
TOKENS = 2048


def memory(setting: Setting) -> list[Row]:
    """Bytes that became resident by loading, nothing of the cache touched yet."""
    ready = {}
    for precision in ("bf16", "int4"):
        with setting.ours(precision) as ours:
            ready[precision] = ours.ready
    rows = [
        Row(f"resident by loading, {name}", one.resident / 1e6, "MB", note=_beside(one))
        for name, one in ready.items()
    ]
    weights = ready["int4"].resident - ready["int4"].beside
    ratio = weights / NOMINAL_BF16
    rows.append(
        Row(
            "resident weights, int4 and int8 embedding",
            weights / 1e6,
            "MB",
            f"bf16, {NOMINAL_BF16 / 1e6:.0f} MB",
            ratio,
            str(RESIDENT),
            RESIDENT.met(ratio),
        )
    )
    return rows


def _beside(ready: Ready) -> str:
    return f"{ready.beside / 1e6:.1f} MB of it the tokenizer and what comes with it"


def perplexity(setting: Setting) -> list[Row]:
    """Of the project's own documents: fp32 by torch is the file's own, int4 is what is served."""
    text, tokens = own_documents(), setting.tokens(TOKENS)
    costs = {
        one.precision: one for one in measure_precisions(setting.model, text, tokens, ["int4"])
    }
    exact = costs["fp32"].perplexity
    rows = [
        Row("perplexity, the file's own numbers in fp32", exact, ""),
        Row("perplexity, int4 by torch", costs["int4"].perplexity, "", "fp32", costs["int4"].ratio),
    ]
    with setting.ours("int4") as ours:
        served = ours.ask(Forced(text, tokens, WINDOW))
        ratio = served.perplexity / exact
        rows.append(
            Row(
                "perplexity, int4 as served, token by token",
                served.perplexity,
                "",
                "fp32",
                ratio,
                str(PERPLEXITY),
                PERPLEXITY.met(ratio),
            )
        )
    return rows


def own_documents() -> str:
    """English prose that is always at hand."""
    root = Path(__file__).resolve().parents[1]
    names = ("concepts.md", "design.md", "threat-model.md", "operate.md")
    return "\n".join((root / "docs" / name).read_text(encoding="utf-8") for name in names)
