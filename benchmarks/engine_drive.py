"""Driving an engine from one thread: requests in, the times of their tokens out.

Knows the engine's contract; must not know how an engine computes or is loaded.
"""

import cProfile
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import numpy as np

from engine_child import Result
from node.engine.base import Engine, EngineRequest, Generated
from protocols.messages.ask import Sampling

ORDINARY_IDS_FROM = 32
"""The first ids of a vocabulary are special tokens."""
NATIVE = ("torch", "Tensor", "PyCapsule")
"""What stands in the names of native functions that compute. Other built-in functions (`len`,
`list.append`) are Python's own."""
NATIVE_FILE = "node/engine/native/library.py"
"""Whose functions do nothing but call compiled code, in a way that the profiler does not see."""


class Prompts:
    """Prompts that no cache has seen: random ids, the same in every run."""

    def __init__(self, vocabulary_size: int) -> None:
        self._random = np.random.default_rng(1)
        self._vocabulary_size = vocabulary_size

    def fresh(self, tokens: int) -> tuple[int, ...]:
        """Another one of this length."""
        low, high = ORDINARY_IDS_FROM, self._vocabulary_size
        return tuple(self._random.integers(low, high, tokens).tolist())


@dataclass(frozen=True, slots=True)
class Run:
    """`arrivals` are seconds from the start to each token, by request; `surprise` is the sum of
    their negative log-likelihoods, as far as the requests asked for them.
    """

    seconds: float
    arrivals: dict[str, list[float]]
    surprise: float


class Driver:
    """Steps an engine until it has nothing left to do."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(self, requests: Sequence[EngineRequest]) -> Run:
        """Submit all at once and wait for the last token of the last."""
        arrivals: dict[str, list[float]] = {one.request_id: [] for one in requests}
        surprise = 0.0
        began = time.perf_counter()
        for one in requests:
            self.engine.submit(one)
        while self.engine.has_work:
            outputs = self.engine.step()
            now = time.perf_counter() - began
            for output in outputs:
                if isinstance(output, Generated):
                    arrivals[output.request_id].append(now)
                    if output.likelihood is not None:
                        surprise -= output.likelihood.logprob
        return Run(time.perf_counter() - began, arrivals, surprise)


def native_share(driver: Driver, request: EngineRequest) -> Result:
    """How long the decode steps of a request took, and how much of it in native calls.

    Two runs. The second is profiled, for the time inside native functions; the profiler's own cost
    falls on Python, so the time in all is that of the first. What torch does between its Python
    binding and its kernel counts as native.
    """
    plain = driver.run([request])
    times = plain.arrivals[request.request_id]
    profile = cProfile.Profile()
    engine, native = driver.engine, 0.0
    engine.submit(request)
    is_reading = True
    while engine.has_work:
        if not is_reading:
            profile.enable()
        outputs = engine.step()
        profile.disable()
        is_reading = is_reading and not any(isinstance(one, Generated) for one in outputs)
    profile.create_stats()
    for entry in profile.getstats():
        if is_native(entry.code):
            native += entry.inlinetime
    return Result(times[-1] - times[0], len(times) - 1, native_seconds=native)


def is_native(code: CodeType | str) -> bool:
    """Whether `code` (the name of a built-in function, or the code of another) computes."""
    if isinstance(code, str):
        return any(name in code for name in NATIVE)
    return Path(code.co_filename).as_posix().endswith(NATIVE_FILE)


@dataclass(frozen=True, slots=True)
class Dictated:
    """A `Matcher` that allows one answer only."""

    answer: tuple[int, ...]
    failure: str = ""

    def allowed(self, answer: Sequence[int]) -> bytes:
        """The token that is next in what is dictated."""
        token = self.answer[len(answer)]
        return bytes(token // 8) + bytes([1 << token % 8])


def forced_perplexity(driver: Driver, ids: Sequence[int], window: int) -> Result:
    """Perplexity of a text that the engine is made to say, token by token, in windows that know
    nothing of each other: what decoding itself computes, whichever way that is.
    """
    began = time.perf_counter()
    surprise, count = 0.0, 0
    for start in range(0, len(ids), window):
        part = tuple(ids[start : start + window])
        if len(part) > 1:
            request = EngineRequest(
                request_id="forced",
                prompt=part[:1],
                max_tokens=len(part) - 1,
                sampling=Sampling(logprobs=0),
                stop_ids=frozenset(),
                matcher=Dictated(part[1:]),
            )
            surprise += driver.run([request]).surprise
            count += len(part) - 1
    seconds = time.perf_counter() - began
    return Result(seconds, count, perplexity=math.exp(surprise / count))
