"""What pages that are not exact cost, in nats a token of the right answer, against what they save.

Method: the first rows of a domain's test set. The base reads the prompt in fp32; its pages up to
the last `window` tokens before the adapter begins are packed and unpacked as between two hosts; the
rest of the prompt and the right answer are computed from them, by the domain's activated adapter if
there is one. The time saved is what `MemoryLinks` predicts for the mean prompt of the domain and
for one of 1,500 tokens, with the measured rate of this CPU in fp32 and a link of 200 Mbit/s.
"""

import gzip
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from node.config_reader import Overrides, load_process_config
from node.engine.adapters.registry import BASE, AdapterSet
from node.engine.adapters.weights import Adapter
from node.engine.batch import Chunk, adapter_column
from node.engine.model import EagerRunner, LlamaModel
from node.engine.page_block import decode_block, encode_block
from node.engine.pages import PAGE_SIZE, pages_for
from node.hosting.adapters import read_adapter
from node.hosting.fetch import resolve
from node.hosting.read import read_model
from node.hosting.weights import ModelWeights
from node.services.memory_links import MemoryLinks
from protocols.ids import PeerId
from protocols.memory import page_bytes
from protocols.messages.ask import ChatMessage
from protocols.messages.memory import Encoding, PageLayout
from report import Row

POSITIONS = 1_536
ANSWER_TOKENS_MAX = 128
SETS: Mapping[str, tuple[str, str]] = {
    "math": ("gsm8k", "a"),
    "medicine": ("medquad", "a"),
    "law": ("legalbench", "a"),
    "computing": ("mbpp", "code"),
    "science": ("mmlu", "answer"),
}
"""The file of each domain, and the field with the answer."""
SCIENCE, TEST_BUCKET = "physics_chem", 5
"""MMLU's rows for science, and those of its test part that no specialist was trained on."""
VARIANTS: Sequence[tuple[Encoding, int]] = (
    ("f32", 0),
    ("bf16", 0),
    ("i8", 0),
    ("i8", 16),
    ("i8", 64),
)
"""How pages travel, and how many of the last tokens are computed anew."""
LINK_BYTES, LINK_LATENCY, LONG = 25e6, 0.005, 1_500
_PEER = PeerId("peer")


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt in tokens, with the assistant's header last, and the right answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


class Judge:
    """Scores answers in fp32, with one adapter or none."""

    def __init__(self, model: LlamaModel, adapter: Adapter | None) -> None:
        self._runner: EagerRunner = model.open(POSITIONS)
        self._adapters = AdapterSet(model.config, model.dtype)
        self._handle = BASE
        if adapter is not None:
            self._adapters.load(adapter)
            self._handle = self._adapters.acquire(adapter.digest)
        self.prompt_rate = 0.0

    def nats(self, example: Example, start: int) -> list[float]:
        """A token, for each of `VARIANTS`; before them with everything computed at once."""
        pages = range(pages_for(POSITIONS))
        ids = [*example.prompt, *example.answer]
        began = time.perf_counter()
        self._run(Chunk(ids[:start], 0, pages, 1))
        self.prompt_rate = start / (time.perf_counter() - began)
        found = [self._rest(example, ids, start, start)]
        most = start // PAGE_SIZE
        exact = self._runner.export_pages(pages[:most]) if most else None
        for encoding, window in VARIANTS:
            shared = max(0, start - window) // PAGE_SIZE
            if exact is not None:
                self._runner.import_pages(pages[:most], exact)
            if exact is not None and shared:
                block = exact.pages(0, shared, PAGE_SIZE)
                shape = (*block.keys.shape[:2], shared * PAGE_SIZE, block.keys.shape[3])
                moved = decode_block(encode_block(block, encoding), shape, encoding)
                self._runner.import_pages(pages[:shared], moved)
            found.append(self._rest(example, ids, shared * PAGE_SIZE, start))
        return found

    def _rest(self, example: Example, ids: list[int], known: int, start: int) -> float:
        count = len(example.answer)
        pages = range(pages_for(POSITIONS))
        chunk = Chunk(ids[known:-1], known, pages, count, self._handle, start)
        logits = self._run(chunk).log_softmax(-1)
        chosen = logits.gather(1, torch.tensor(example.answer).unsqueeze(1))
        return -float(chosen.mean())

    def _run(self, chunk: Chunk) -> torch.Tensor:
        return self._runner.run([chunk], self._adapters.plan(adapter_column([chunk])))


def loss_rows(data: Path | None, adapters: Path | None, *, is_quick: bool) -> list[Row]:
    """For each domain of which there are data."""
    if data is None:
        return [Row("loss", None, "nats a token", note="needs --data")]
    paths = load_process_config(Overrides()).config.paths
    weights = read_model(resolve("smollm2", paths.models))
    model = LlamaModel(weights.config, weights.tensors, torch.float32, POSITIONS)
    rows: list[Row] = []
    for domain, (name, field) in SETS.items():
        file = data / f"{name}.jsonl.gz"
        if file.exists():
            adapter = _adapter(adapters, domain, weights)
            examples = list(_examples(file, field, weights, 16 if is_quick else 64))
            rows += _domain(domain, Judge(model, adapter), examples, weights, adapter is not None)
    return rows


def _domain(
    domain: str,
    judge: Judge,
    examples: list[Example],
    weights: ModelWeights,
    is_adapted: bool,
) -> list[Row]:
    header = len(weights.tokenizer.encode_text("<|im_start|>assistant\n"))
    found = [judge.nats(one, len(one.prompt) - header) for one in examples]
    exact = statistics.fmean(one[0] for one in found)
    tokens = statistics.fmean(len(one.prompt) for one in examples)
    who = "activated adapter" if is_adapted else "plain base"
    rows = [Row(f"{domain}, computed ({who})", exact, "nats a token", note=f"{len(found)} rows")]
    for number, (encoding, window) in enumerate(VARIANTS, start=1):
        differences = [one[number] - one[0] for one in found]
        error = statistics.stdev(differences) / len(differences) ** 0.5
        saved = [
            _saved(weights, encoding, count - window, judge.prompt_rate) for count in (tokens, LONG)
        ]
        rows.append(
            Row(
                f"{domain}, {encoding}, window {window}: lost",
                statistics.fmean(differences),
                "nats a token",
                note=f"+-{1.96 * error:.5f}; time saved {saved[0]:.0%} at {tokens:.0f} tokens, "
                f"{saved[1]:.0%} at {LONG}",
            )
        )
    return rows


def _saved(weights: ModelWeights, encoding: Encoding, tokens: float, rate: float) -> float:
    config = weights.config
    layout = PageLayout(
        "b", "fp32", config.layers, config.kv_heads, config.head_dimension, PAGE_SIZE
    )
    links = MemoryLinks()
    links.measured(_PEER, int(LINK_BYTES), 1.0, LINK_LATENCY, 0.0)
    size = page_bytes(layout, encoding) / PAGE_SIZE
    journey = links.predict(_PEER, max(1, int(tokens)), size, rate, 0.0)
    return 1 - journey.together / journey.alone


def _adapter(folder: Path | None, domain: str, weights: ModelWeights) -> Adapter | None:
    """The domain's activated one: `DOMAIN`, or `DOMAIN-activated` beside an ordinary one."""
    for name in (f"{domain}-activated", domain) if folder is not None else ():
        if folder is not None and (folder / name).is_dir():
            adapter = read_adapter(folder / name, weights.config)
            if adapter.invocation:
                return adapter
    return None


def _examples(file: Path, field: str, weights: ModelWeights, most: int) -> Iterator[Example]:
    tokenizer = weights.tokenizer
    end = (min(tokenizer.stop_ids),)
    count = 0
    with gzip.open(file) as lines:
        for line in lines:
            row = msgspec.json.decode(line)
            if row.get("split") != "test" or count >= most or not _is_wanted(row):
                continue
            prompt = tokenizer.encode_chat((ChatMessage("user", row["q"]),))
            answer = tokenizer.encode_text(_text(row, field))[:ANSWER_TOKENS_MAX] + end
            if len(prompt) + len(answer) < POSITIONS:
                count += 1
                yield Example(prompt, answer)


def _is_wanted(row: Mapping[str, Any]) -> bool:
    return "choices" not in row or (row["domain"] == SCIENCE and row["bucket"] == TEST_BUCKET)


def _text(row: Mapping[str, Any], field: str) -> str:
    return str(row["choices"]["ABCD".index(row[field])] if "choices" in row else row[field])
