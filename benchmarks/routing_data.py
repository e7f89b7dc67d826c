"""The prompts that the router is trained and measured on, and their vectors, cached on disk.

Knows the data sets' files and the encoder; must not know cards' scores or figures. Sets: MMLU (57
subjects in 8 domains and `other`), GSM8K, MedQuAD, LegalBench, MBPP, CLINC150; none is shipped.
"""

import asyncio
import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.ports import EncodedPrompt
from coordinator.routing.segments import segments
from node.hosting.encoder import MiniLmEncoder

Floats = NDArray[np.float32]
DOMAINS = (
    "computing", "economics_business", "history_politics", "law", "math", "medicine",
    "physics_chem", "psychology",
)  # fmt: skip
NEAR_SUBJECTS = ("philosophy", "world_religions", "miscellaneous")
JOINS = (" ", "\n", " Then: ", " Also, ", " Using that, ", " After that, ")
EXTERNAL = (
    ("gsm8k", "math", ("train",), 400),
    ("medquad", "medicine", ("train",), 400),
    ("legalbench", "law", ("train",), 700),
    ("mbpp", "computing", ("train", "val"), 464),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt, whose domain and narrower subject are known. `choices` are the answers offered."""

    text: str
    domain: str
    subject: str
    choices: str = ""
    second: str = ""
    """The other domain of a prompt that was joined from two."""


class Data:
    """The data sets' folder. All choices among rows are made by fixed seeds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rows(self, name: str) -> list[dict[str, str]]:
        """A whole set as it lies in its file."""
        with gzip.open(self._folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def mmlu(self, splits: Iterable[str]) -> list[Row]:
        """Questions without their choices; exact repeats of other splits are left out of `test`."""
        wanted = set(splits)
        return [
            Row(one["q"], one["domain"], one["subject"], _joined(one["choices"]))
            for one in self.rows("mmlu")
            if one["split"] in wanted and not (one["split"] == "test" and _is_repeat(one))
        ]

    def external(self, *, is_test: bool) -> list[Row]:
        """The four domains in other styles than MMLU's: 200 test prompts each, or training ones."""
        found = []
        for name, domain, splits, count in EXTERNAL:
            taken, number = (("test",), 200) if is_test else (splits, count)
            rows = [one for one in self.rows(name) if one["split"] in taken]
            random.Random(3).shuffle(rows)
            found += [Row(one["q"], domain, name) for one in rows[:number]]
        return found

    def everyday(self) -> list[Row]:
        """CLINC150's training prompts, eight of each intent."""
        rows = [one for one in self.rows("clinc150") if one["split"] == "train"]
        random.Random(3).shuffle(rows)
        count: dict[str, int] = {}
        found = []
        for one in rows:
            count[one["intent"]] = count.get(one["intent"], 0) + 1
            if count[one["intent"]] <= 8:
                found.append(Row(one["q"], "everyday", one["domain"]))
        return found

    def out_of_scope(self, splits: Sequence[str]) -> list[Row]:
        """CLINC150's prompts without an intent."""
        rows = self.rows("clinc150")
        return [Row(one["q"], "far", "oos") for one in rows if one["split"] in splits]

    def near(self) -> list[Row]:
        """500 MMLU test questions of subjects that none of the eight domains has."""
        rows = [one for one in self.mmlu(["test"]) if one.subject in NEAR_SUBJECTS]
        random.Random(3).shuffle(rows)
        return rows[:500]


def composites(rows: Sequence[Row], count: int, seed: int, joins: Sequence[str]) -> list[Row]:
    """Two questions of different domains, joined."""
    rng = random.Random(seed)
    pool = {domain: [one.text for one in rows if one.domain == domain] for domain in DOMAINS}
    found = []
    for _ in range(count):
        first, second = rng.sample(DOMAINS, 2)
        text = rng.choice(pool[first]) + rng.choice(list(joins)) + rng.choice(pool[second])
        found.append(Row(text, first, "", second=second))
    return found


class Vectors:
    """Encodes prompts in one pass with their segments, and keeps what came out in a file."""

    def __init__(self, encoder: MiniLmEncoder, cache: Path | None) -> None:
        self._encoder = encoder
        self._path = cache / f"prompts-{encoder.digest[:16]}.npz" if cache else None
        self._known: dict[str, EncodedPrompt] = {}
        self._fresh = 0
        if self._path is not None and self._path.exists():
            self._load(self._path)

    @property
    def encoder(self) -> MiniLmEncoder:
        """Who encodes."""
        return self._encoder

    def of(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Whole vectors and those of `segments`, in the order of `texts`."""
        missing = [text for text in dict.fromkeys(texts) if _key(text) not in self._known]
        asyncio.run(self._encode(missing))
        if self._fresh:
            self._save()
        return [self._known[_key(text)] for text in texts]

    def whole(self, texts: Sequence[str]) -> Floats:
        """`[texts, dimensions]`."""
        return np.stack([one.whole for one in self.of(texts)])

    async def _encode(self, texts: Sequence[str]) -> None:
        for text in texts:
            parts = [(one.start, one.end) for one in segments(text)]
            self._known[_key(text)] = await self._encoder.encode_prompt(text, parts)
            self._fresh += 1

    def _save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        values = list(self._known.values())
        with self._path.with_suffix(".part").open("wb") as file:
            np.savez(
                file,
                keys=np.array(list(self._known)),
                whole=np.stack([one.whole for one in values]).astype(np.float16),
                counts=np.array([len(one.parts) for one in values]),
                parts=np.concatenate([one.parts for one in values]).astype(np.float16),
            )
        self._path.with_suffix(".part").replace(self._path)
        self._fresh = 0

    def _load(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as found:
            whole, parts = found["whole"].astype(np.float32), found["parts"].astype(np.float32)
            ends = np.cumsum(found["counts"])
            for at, key in enumerate(found["keys"].tolist()):
                own = parts[ends[at] - found["counts"][at] : ends[at]]
                self._known[key] = EncodedPrompt(whole[at], own)


def _key(text: str) -> str:
    """The segments belong to it too: other cuts are other vectors."""
    cuts = ",".join(f"{one.start}-{one.end}" for one in segments(text))
    return hashlib.sha1(f"{cuts}|{text}".encode(), usedforsecurity=False).hexdigest()


def _joined(choices: str | list[str]) -> str:
    """Choices come as a list, or as a list written out."""
    import ast

    found = ast.literal_eval(choices) if isinstance(choices, str) else choices
    return " ".join(str(one) for one in found)


def _is_repeat(row: dict[str, str]) -> bool:
    return str(row["dup"]) == "True"
