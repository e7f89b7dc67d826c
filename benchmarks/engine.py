"""How fast and how small is the engine, against llama.cpp, transformers and itself?

Method: each way of answering runs in a process of its own, with the same model file, the same
number of threads (as many as there are cores, unless the row says otherwise), prompts of the same
length and answers of the same length, after a warm-up. Ways that are compared take turns, five
rounds, every other one backwards; figures are medians, a ratio is the median of the rounds' ratios.
transformers gets dense bf16 weights, sdpa attention and spinning threads (its quickest here);
llama.cpp its own `llama-bench` and the quickest of its settings, tried first. Ours is loaded as a
node loads it, with speculation off except in the rows about it. A row whose baseline, device or
part of the engine is not there says so and is left out of the verdict.

"Our Python between kernels" is the share of a decode step that passes outside torch's and our own
native functions; what torch itself does before a kernel starts counts as native.

Run: `scripts/bench engine [--rows decode_int4,prefill] [--quick] [--json]`.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch

import engine_many as many
import engine_memory as memory
import engine_single as single
from engine_setting import Missing, Setting, cores
from node.config_reader import Overrides, load_process_config
from node.hosting.fetch import default_model_path
from report import Row, line, print_report


def cuda(setting: Setting) -> list[Row]:
    """Imported where it is wanted: it needs what only a machine with a GPU has."""
    if not torch.cuda.is_available():
        raise Missing("no CUDA device here")
    import engine_cuda

    return engine_cuda.cuda(setting)


ROWS: dict[str, Callable[[Setting], list[Row]]] = {
    "decode_int4": single.decode_int4,
    "decode_int4_one_thread": single.decode_int4_one_thread,
    "prefill": single.prefill,
    "decode_bf16": single.decode_bf16,
    "concurrent": many.concurrent,
    "prefix": many.prefix,
    "memory": memory.memory,
    "perplexity": memory.perplexity,
    "speculation": many.speculation,
    "adapters": many.adapters,
    "overhead": single.overhead,
    "cuda": cuda,
}
LISTEN_SECONDS = 2.0
BUSY = 0.15
"""The share of the machine that others may use before figures mean nothing."""


def state() -> list[Row]:
    """What the machine is, and what else it does; listens for a while."""
    others = psutil.cpu_percent(LISTEN_SECONDS) / 100
    clock = psutil.cpu_freq()
    return [
        Row("cores that we may use", cores(), "cores"),
        Row("clock", clock.current if clock else None, "MHz"),
        Row("memory free", psutil.virtual_memory().available / 1e9, "GB"),
        Row("load before the run", os.getloadavg()[0], "processes"),
        Row("used by others", 100 * others, "%"),
    ]


def measure(names: Sequence[str], setting: Setting) -> list[Row]:
    """All rows of these names, shown on stderr as they come.

    One that cannot be measured says why.
    """
    found: list[Row] = []
    for name in names:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        try:
            rows = ROWS[name](setting)
        except Missing as reason:
            rows = [Row(name, None, "", note=str(reason))]
        for row in rows:
            print(line(row, 0), file=sys.stderr, flush=True)
        found += rows
    return found


def wanted(text: str) -> list[str]:
    """The rows named, separated by commas; all if none is. `ValueError` for a name there is not."""
    names = [name for name in text.split(",") if name] or list(ROWS)
    for name in names:
        if name not in ROWS:
            raise ValueError(f"there is no row {name}; there are {', '.join(ROWS)}")
    return names


def main() -> int:
    """Measure, print the table and the line of JSON; 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default="", help=f"some of {','.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="shows that it runs; no figures")
    parser.add_argument("--json", action="store_true", help="only the line for programs")
    parser.add_argument(
        "--busy", action="store_true", help="measure on a busy machine all the same"
    )
    parser.add_argument("--model", type=Path, help="another GGUF file")
    arguments = parser.parse_args()
    try:
        names = wanted(arguments.rows)
    except ValueError as error:
        parser.error(str(error))
    model = arguments.model or default_model_path(
        load_process_config(Overrides()).config.paths.models
    )
    machine = state()
    is_busy = (machine[-1].value or 0) > 100 * BUSY
    if is_busy and not (arguments.busy or arguments.quick):
        print("error: others use this machine; stop them, or say --busy", file=sys.stderr)
        return 2
    setting = Setting(model, arguments.quick)
    rows = machine + measure(names, setting)
    rows.append(Row("load after the run", os.getloadavg()[0], "processes"))
    if arguments.quick:
        # One short round says nothing about speed, so it cannot miss a target either.
        rows = [replace(row, met=None) for row in rows]
    return print_report("engine", rows, setting.about, is_table_wanted=not arguments.json)


if __name__ == "__main__":
    sys.exit(main())
