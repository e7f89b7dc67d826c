"""Driving an engine: when tokens come, and a text that it is made to say."""

import math
from collections.abc import Sequence

import pytest
import torch

from engine_drive import Dictated, Driver, Prompts, forced_perplexity, is_native, native_share
from node.engine.base import EngineRequest, Generated, StepOutput, TokenLikelihood
from node.engine.fake import FakeEngine, FakeOptions
from protocols.messages.ask import Sampling


class Unsure(FakeEngine):
    """Finds every token as likely as one of two, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(FakeOptions())
        self.asked: list[EngineRequest] = []

    def submit(self, request: EngineRequest) -> None:
        self.asked.append(request)
        super().submit(request)

    def step(self) -> Sequence[StepOutput]:
        half = TokenLikelihood(-math.log(2), ())
        return [
            Generated(one.request_id, one.position, one.token_id, half)
            if isinstance(one, Generated)
            else one
            for one in super().step()
        ]


def request(name: str, prompt: Sequence[int], tokens: int) -> EngineRequest:
    return EngineRequest(name, tuple(prompt), tokens, Sampling(), frozenset())


def test_each_token_of_each_request_has_its_time() -> None:
    run = Driver(FakeEngine(FakeOptions())).run([request("a", [1], 3), request("b", [2, 3], 5)])
    assert [len(run.arrivals[name]) for name in "ab"] == [3, 5]
    for times in run.arrivals.values():
        assert 0 < times[0] <= times[-1] <= run.seconds
        assert times == sorted(times)


def test_prompts_are_never_the_same_in_a_run_and_always_the_same_between_runs() -> None:
    one, other = Prompts(256), Prompts(256)
    first = one.fresh(16)
    assert len(first) == 16
    assert first == other.fresh(16)
    assert one.fresh(16) != first
    assert all(32 <= token < 256 for token in first)


@pytest.mark.parametrize("token", [0, 7, 8, 300])
def test_only_what_is_dictated_is_allowed(token: int) -> None:
    mask = Dictated((5, token)).allowed([5])
    allowed = [n for n in range(8 * len(mask)) if mask[n // 8] >> n % 8 & 1]
    assert allowed == [token]


def test_a_forced_text_is_cut_into_windows_whose_first_tokens_do_not_count() -> None:
    engine = Unsure()
    result = forced_perplexity(Driver(engine), [9, 8, 7, 6, 5, 4, 3], 3)
    # The last window is one token long: nothing of it can be predicted.
    assert [(one.prompt, one.max_tokens) for one in engine.asked] == [((9,), 2), ((6,), 2)]
    assert result.tokens == 4
    assert result.perplexity == pytest.approx(2)


def test_native_is_what_torch_and_compiled_code_do() -> None:
    assert is_native("<built-in method torch._C._nn.linear>")
    assert is_native("<method 'view' of 'torch._C.TensorBase' objects>")
    assert is_native("<built-in method _weight_int4pack_mm_for_cpu of PyCapsule object at 0x1>")
    assert not is_native("<built-in method builtins.len>")
    assert not is_native("<method 'append' of 'list' objects>")
    assert not is_native(request.__code__)
    wrapper = compile("pass", "/any/where/node/engine/native/library.py", "exec")
    assert is_native(wrapper)


class Multiplying(FakeEngine):
    """Spends its steps in torch."""

    def step(self) -> Sequence[StepOutput]:
        matrix = torch.ones(384, 384)
        for _ in range(20):
            matrix = torch.mm(matrix, matrix)
        return super().step()


def test_time_in_torch_is_native_and_other_time_is_not() -> None:
    options = FakeOptions(context_length=64)
    busy = native_share(Driver(Multiplying(options)), request("a", [1], 30))
    assert busy.tokens == 29
    assert busy.native_seconds > 0.3 * busy.seconds
    idle = native_share(Driver(FakeEngine(options)), request("a", [1], 30))
    assert idle.native_seconds == 0
    assert idle.seconds > 0
