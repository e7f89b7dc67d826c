"""What trees are judged by: answers of the real model, and what its steps cost by rows.

Knows how the model is loaded and driven; must not know guesses.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine_build import engine_of, spec_of
from engine_drive import Prompts
from engine_setting import Precision, cores
from node.engine.base import EngineRequest, Generated
from node.engine.batch import Chunk
from node.engine.pages import pages_for
from node.engine.runner import Runner
from node.hosting.hosted import HostedModel, load_model
from protocols.messages.ask import ChatMessage, Sampling
from trees_played import Recorded

RANKED = 4
CONTEXT = 320
"""Tokens before the step whose cost is measured: about the middle of what is recorded."""
ROWS = tuple(range(1, 17))

_ITEMS = (
    "oak chair, pine table, brass lamp, wool rug, glass vase, iron kettle, clay pot, silk scarf",
    "Monday 9:00 stand-up; Monday 10:30 design review; Tuesday 9:00 stand-up; Tuesday 14:00 retro",
    "alpha-17, beta-23, gamma-31, delta-47, epsilon-53, zeta-61, eta-73, theta-89, iota-97",
)
_TEXTS = (
    "The harbour of Whitby lies at the mouth of the river Esk. Its two stone piers reach far into "
    "the grey North Sea. In summer the harbour is full of boats, and in winter it is quiet.",
    "Dear Mr. Smith, thank you for you're letter of 3 May. We are sorry that the order did not "
    "arived in time. We will send it again tommorow, and you will not have to pay for it.",
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n",
)
_RECORDS = (
    "Anna, 31, nurse, Leeds; Ben, 45, baker, York; Cara, 28, pilot, Hull; Dan, 52, clerk, Ripon",
    "ISBN 1-23, Dune, Herbert, 1965; ISBN 4-56, Emma, Austen, 1815; ISBN 7-89, Ulysses, 1922",
)
PROMPTS: dict[str, Sequence[str]] = {
    "a list to copy": [f"Repeat this list exactly, one item a line:\n{one}" for one in _ITEMS],
    "a text to edit": [
        f"{order}\n\n{text}"
        for text in _TEXTS
        for order in ("Correct all mistakes in this:", "Rewrite this with 'lake' for 'harbour':")
    ],
    "JSON": [
        f"Write this as a JSON list of objects, with a key for each field:\n{one}"
        for one in _RECORDS
    ]
    + ["Write a JSON object that describes a car: make, model, year, colours, owners."],
    "a story": [
        f"Tell a story about {one}."
        for one in ("a lighthouse keeper", "two foxes in winter", "the last train", "a lost letter")
    ],
    "a question, and again": [
        "Why is the sky blue?",
        "How do bees make honey?",
        "Why is the sky blue? Explain it to a child.",
        "How do bees make honey? Answer in short.",
    ],
}
"""By kind of text; those of one kind are taken to be one client's, one after the other."""


def record(path: Path, tokens: int) -> dict[str, list[Recorded]]:
    """Greedy answers of up to `tokens` tokens, without speculation, in four bits."""
    with _hosted(path, "int4") as hosted:
        return {
            kind: [_answer(hosted, prompt, tokens) for prompt in prompts]
            for kind, prompts in PROMPTS.items()
        }


@contextmanager
def _hosted(path: Path, precision: Precision) -> Iterator[HostedModel]:
    """As a node has it; its own thread sleeps while we step the engine."""
    with asyncio.Runner() as runner:
        hosted = runner.run(load_model(spec_of(path, precision, cores(), "off")))
        try:
            yield hosted
        finally:
            runner.run(hosted.close())


def _answer(hosted: HostedModel, text: str, tokens: int) -> Recorded:
    engine = engine_of(hosted)
    prompt = hosted.tokenizer.encode_chat([ChatMessage("user", text)])
    stop = hosted.tokenizer.stop_ids
    engine.submit(EngineRequest("one", prompt, tokens, Sampling(logprobs=RANKED), stop))
    answer: list[int] = []
    ranked: list[list[int]] = []
    while engine.has_work:
        for output in engine.step():
            if isinstance(output, Generated) and output.likelihood is not None:
                answer.append(output.token_id)
                ranked.append([one.token_id for one in output.likelihood.top])
    return Recorded(prompt, answer, ranked)


def measure_costs(path: Path, precision: Precision, rounds: int) -> dict[int, float]:
    """Seconds of a step by its rows, all of which want logits: medians of `rounds`."""
    with _hosted(path, precision) as hosted:
        runner: Runner = engine_of(hosted)._runner  # type: ignore[attr-defined]
        times = _timed(runner, hosted.tokenizer.tokenizer.get_vocab_size(), rounds)
    return {rows: statistics.median(seconds) for rows, seconds in times.items()}


def _timed(runner: Runner, vocabulary: int, rounds: int) -> dict[int, list[float]]:
    ids = Prompts(vocabulary).fresh(CONTEXT + max(ROWS))
    pages = range(pages_for(len(ids)))
    runner.run([Chunk(ids[:CONTEXT], 0, pages, logits=1)])
    seconds: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for number in range(rounds):
        for rows in ROWS if number % 2 == 0 else reversed(ROWS):
            chunk = Chunk(ids[CONTEXT : CONTEXT + rows], CONTEXT, pages, logits=rows)
            began = time.perf_counter()
            runner.run([chunk])
            seconds[rows].append(time.perf_counter() - began)
    return seconds
