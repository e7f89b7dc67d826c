"""How much sooner do the later steps of a task speak when memory is passed on, and at what loss?

Method. `one_host`: one node; three activated specialists (adapters with random weights) on one
base answer in turn: a prompt of 1,500 tokens, then each step reads the prompt, the answers so far
(32 tokens each) and one more question. The time from the request to the first token of steps 2 and
3 is compared with that of the same requests when nothing of them was read before (another prompt of
the same length). `two_hosts`: the second step is at another node, a process of its own, behind a
link of 200 Mbit/s (a TCP proxy with a token bucket, 2 ms of delay); its first token with pages
fetched while it computes, and with the prompt prepared there while the first step speaks, against
computing everything there. Medians of several rounds with fresh prompts. `loss`: nats for each
token of the answers of a test set by the trained specialists, with the prompt's keys and values as
another peer would get them.

Run: `.venv/bin/python benchmarks/memory.py [one_host|two_hosts|loss ...] [--quick] [--precision P]
[--data DIR] [--adapters DIR]`.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from memory_hosts import Host, Setting, other_host, own_host
from memory_loss import loss_rows
from report import Row, print_report

TARGET_ONE, TARGET_TWO = 0.10, 0.50
PREPARED_TOKENS = (32, 96)
"""How long the first step speaks while the second host is made ready."""
PARTS = ("one_host", "two_hosts", "loss")


async def one_host(setting: Setting) -> list[Row]:
    """Steps 2 and 3 against reading everything anew."""
    found: dict[str, list[float]] = {}
    async with own_host(setting) as host:
        await host.warm_up()
        for number in range(setting.rounds):
            chain = host.chain(number)
            await chain.step(0)
            for index in (1, 2):
                _note(found, f"step {index + 1}", await chain.step(index))
                fresh = host.chain(10_000 + 10 * number + index, chain.answers)
                _note(found, f"step {index + 1} anew", await fresh.step(index))
    return [
        _row(
            f"one host, step {step}", found[f"step {step}"], found[f"step {step} anew"], TARGET_ONE
        )
        for step in (2, 3)
    ]


async def two_hosts(setting: Setting) -> list[Row]:
    """Step 2 at another host, with and without what step 1 left at the first."""
    rows: list[Row] = []
    for pages in setting.pages:
        found: dict[str, list[float]] = {}
        notes: dict[str, str] = {}
        with other_host(setting, pages) as there:
            async with own_host(setting, there) as host:
                await host.warm_up(there.peer)
                for number in range(setting.rounds):
                    await _round(host, there.peer, number, found, notes)
        for name, note in notes.items():
            row = _row(f"two hosts, {pages}, {name}", found[name], found["anew"], TARGET_TWO)
            rows.append(replace(row, note=note))
        rows.append(Row(f"two hosts, {pages}, back at the first", *_value(found["back"])))
        rows.append(Row(f"two hosts, {pages}, all anew", *_value(found["anew"])))
    return rows


async def _round(
    host: Host, there: str, number: int, found: dict[str, list[float]], notes: dict[str, str]
) -> None:
    chain = host.chain(number)
    await chain.step(0)
    _note(found, "fetched", await chain.step(1, at=there, memory_at=host.me))
    notes["fetched"] = chain.note
    _note(found, "back", await chain.step(2, memory_at=there))
    fresh = host.chain(20_000 + number, chain.answers)
    _note(found, "anew", await fresh.step(1, at=there))
    for tokens in PREPARED_TOKENS:
        name = f"prepared in {tokens} tokens"
        ready = host.chain(30_000 + 1_000 * tokens + number)
        ready.tokens = tokens
        await ready.step(0, prepare_at=there)
        _note(found, name, await ready.step(1, at=there, memory_at=host.me))
        notes[name] = ready.note


def _note(found: dict[str, list[float]], name: str, seconds: float) -> None:
    print(f"{name}: {seconds * 1e3:.0f} ms", file=sys.stderr, flush=True)
    found.setdefault(name, []).append(seconds)


def _value(times: Sequence[float]) -> tuple[float, str]:
    return statistics.median(times) * 1e3, "ms"


def _row(name: str, times: Sequence[float], anew: Sequence[float], target: float) -> Row:
    ratio = statistics.median(times) / statistics.median(anew)
    return Row(name, *_value(times), "anew", ratio, f"<= {target:.0%} of anew", ratio <= target)


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS[:2], choices=PARTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=1_500)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--adapters", type=Path)
    wanted = parser.parse_args()
    setting = Setting(
        precision=wanted.precision,
        tokens=wanted.tokens,
        rounds=4 if wanted.quick else 9,
        pages=("int8",) if wanted.quick else ("int8", "bf16"),
        threads=wanted.threads,
    )
    rows: list[Row] = []
    if "one_host" in wanted.parts:
        rows += asyncio.run(one_host(setting))
    if "two_hosts" in wanted.parts:
        rows += asyncio.run(two_hosts(setting))
    if "loss" in wanted.parts:
        rows += loss_rows(wanted.data, wanted.adapters, is_quick=wanted.quick)
    return print_report("memory", rows, [f"SmolLM2-135M-Instruct in {setting.precision}"])


if __name__ == "__main__":
    sys.exit(main())
