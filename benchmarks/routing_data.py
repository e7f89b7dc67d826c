"""The prompts that the router is trained and measured on, and their vectors, cached on disk.

Knows the data sets' files and the encoder; must not know cards' scores or figures. Sets: MMLU (57
subjects in 8 domains and `other`), GSM8K, MedQuAD, LegalBench, MBPP, CLINC150; none is shipped.
"""

import asyncio
import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.ports import EncodedPrompt
from coordinator.routing.reading import Reading, encoded_spans, reading
from coordinator.routing.segments import cuts
from node.hosting.encoder import MiniLmEncoder

Floats = NDArray[np.float32]
DOMAINS = (
    "computing", "economics_business", "history_politics", "law", "math", "medicine",
    "physics_chem", "psychology",
)  # fmt: skip
NEAR_SUBJECTS = ("philosophy", "world_religions", "miscellaneous")
FOLDS = 4
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
    seam: tuple[int, int] = (0, 0)
    """Between which characters the other begins."""


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
    domains = [domain for domain in DOMAINS if pool[domain]]
    found = []
    for _ in range(count):
        first, second = rng.sample(domains, 2)
        one, join, two = rng.choice(pool[first]), rng.choice(list(joins)), rng.choice(pool[second])
        end = len(one) + len(join) + len(two) - len(two.lstrip())
        seam = (len(one.rstrip()), end)
        found.append(Row(one + join + two, first, "", second=second, seam=seam))
    return found


def fold_of(row: Row) -> int:
    """A quarter of the rows, by their text."""
    digest = hashlib.sha1(row.text.encode(), usedforsecurity=False).digest()
    return digest[0] % FOLDS


class Vectors:
    """Encodes prompts, and keeps what came out in a file."""

    def __init__(self, encoder: MiniLmEncoder, cache: Path | None) -> None:
        self._encoder = encoder
        self._path = cache / f"read-{encoder.digest[:16]}.npz" if cache else None
        self._known: dict[str, EncodedPrompt] = {}
        self._fresh = 0
        if self._path is not None and self._path.exists():
            self._load(self._path)

    @property
    def encoder(self) -> MiniLmEncoder:
        """Who encodes."""
        return self._encoder

    def readings(self, texts: Sequence[str]) -> list[Reading]:
        """As the router reads `texts`, in their order."""
        keys = {text: _key(text) for text in texts}
        self._get(keys, is_cut=True)
        return [reading(text, cuts(text), self._known[keys[text]]) for text in texts]

    def whole(self, texts: Sequence[str]) -> Floats:
        """`[texts, dimensions]`."""
        keys = {text: _digest(text) for text in texts}
        self._get(keys, is_cut=False)
        return np.stack([self._known[keys[text]].whole for text in texts])

    def _get(self, keys: Mapping[str, str], *, is_cut: bool) -> None:
        missing = {text: key for text, key in keys.items() if key not in self._known}
        asyncio.run(self._encode(missing, is_cut=is_cut))
        if self._fresh:
            self._save()

    async def _encode(self, missing: Mapping[str, str], *, is_cut: bool) -> None:
        for text, key in missing.items():
            if is_cut:
                self._known[key] = await encoded_spans(self._encoder, text, cuts(text))
            else:
                self._known[key] = await self._encoder.encode_prompt(text)
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
    """The cuts belong to it too: other cuts are other vectors."""
    return _digest(f"{[cut.at for cut in cuts(text)]}|{text}")


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _joined(choices: str | list[str]) -> str:
    """Choices come as a list, or as a list written out."""
    import ast

    found = ast.literal_eval(choices) if isinstance(choices, str) else choices
    return " ".join(str(one) for one in found)


def _is_repeat(row: dict[str, str]) -> bool:
    return str(row["dup"]) == "True"
