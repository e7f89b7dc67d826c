"""Makes the kept corpus: `python -m tests.fuzz.distill TARGET... [--inputs N] [--seed N]`.

Knows how to see what an input reaches: the lines of our packages that run, and the shape of the
complaint where the work is done in C. An input that reaches something new joins the pool; at the
end the fewest and smallest that reach all of it are kept.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.corpora import corpus_of, write_corpus
from tests.fuzz.mutator import mutator_of
from tests.fuzz.registry import TARGETS, make_target
from tests.fuzz.target import Target

FILES_MAX = 30
BYTES_MAX = 6_000
"""Of one target's corpus."""
FILE_BYTES_MAX = 2_500
_PACKAGES = tuple(f"/{name}/" for name in ("protocols", "coordinator", "node"))
_CHANGING = re.compile(r"0x[0-9a-f]+|\d+|/\S+|'[^']*'|\"[^\"]*\"")
Feature = tuple[str, int]


class Tracer:
    """Notes each line of our own code that runs."""

    def __init__(self) -> None:
        self.lines: set[Feature] = set()
        self._ours: dict[CodeType, bool] = {}

    def __call__(self, frame: FrameType, _event: str, _argument: object) -> Any:
        """`sys.settrace`: whether to look into a call."""
        code = frame.f_code
        ours = self._ours.get(code)
        if ours is None:
            file = code.co_filename
            ours = "site-packages" not in file and any(part in file for part in _PACKAGES)
            self._ours[code] = ours
        return self._line if ours else None

    def _line(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def features_of(target: Target, data: bytes, tracer: Tracer) -> set[Feature]:
    """What `data` reaches."""
    tracer.lines = set()
    complaint = "taken"
    sys.settrace(tracer)
    try:
        target.run(data)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        complaint = f"{type(error).__name__} {_CHANGING.sub('#', str(error))[:80]}"
    finally:
        sys.settrace(None)
    return {*tracer.lines, (complaint, 0)}


def distill(target: Target, known: tuple[bytes, ...], seed: int, inputs: int) -> list[bytes]:
    """The fewest small inputs that reach all that `inputs` mutations reached."""
    mutator = mutator_of(target, known, seed)
    tracer = Tracer()
    reached: dict[bytes, set[Feature]] = {}
    best: dict[Feature, int] = {}
    for data in (*target.seeds, *known):
        reached[data] = features_of(target, data, tracer)
        best |= dict.fromkeys(reached[data], min(len(data), FILE_BYTES_MAX))
    for _ in range(inputs):
        data = mutator.draw()
        if len(data) > FILE_BYTES_MAX:
            continue
        features = features_of(target, data, tracer)
        if any(len(data) < best.get(feature, 1 << 30) for feature in features):
            if features - best.keys():
                mutator.add(data)
            best |= {one: min(len(data), best.get(one, 1 << 30)) for one in features}
            reached[data] = features
    return _cover(target, reached)


def _cover(target: Target, reached: dict[bytes, set[Feature]]) -> list[bytes]:
    """Greedy: whatever adds most for its size, until nothing adds anything."""
    have: set[Feature] = set()
    for seed in target.seeds:
        have |= reached.get(seed, set())
    chosen: list[bytes] = []
    left = {data: features for data, features in reached.items() if data not in target.seeds}
    room = BYTES_MAX
    while left and len(chosen) < FILES_MAX:
        data = max(left, key=lambda one: (_worth(left[one] - have), -len(one)))
        gain = left.pop(data) - have
        if not gain:
            break
        if len(data) <= room:
            room -= len(data)
            have |= gain
            chosen.append(data)
    return chosen


def _worth(gain: set[Feature]) -> int:
    """The deeper the field that is complained about, the more of a parser in C has run."""
    return sum(2 * what.count(".") if "`$." in what else 1 for what, _ in gain)


def main() -> None:
    """Write the corpus of the targets that the command line names; of all without any."""
    parser = argparse.ArgumentParser(description="Make the kept corpus.")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--inputs", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    for name in options.targets or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            target = make_target(name, Path(folder))
            kept = distill(target, corpus_of(name), options.seed, options.inputs)
        write_corpus(name, kept)
        print(f"{name}: {len(kept)} inputs, {sum(map(len, kept))} bytes", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
