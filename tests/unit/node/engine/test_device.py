"""Which device is chosen, and what is said when it cannot be had."""

import pytest
import torch

from node.engine.batch import CPU
from node.engine.device import (
    NoDevice,
    choose_device,
    describe_device,
    device_kind,
    free_memory,
)

GPU = torch.device("cuda", 0)


@pytest.fixture(params=[False, True], ids=["no GPU", "GPU"])
def has_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    found: bool = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return found


def test_auto_is_a_gpu_where_there_is_one(*, has_gpu: bool) -> None:
    assert choose_device("auto") == (GPU if has_gpu else CPU)
    assert choose_device("cpu") == CPU


def test_what_is_asked_for_and_not_there_is_refused_with_the_reason(*, has_gpu: bool) -> None:
    with pytest.raises(NoDevice, match="no MPS device"):
        choose_device("mps")
    if has_gpu:
        assert choose_device("cuda") == GPU
        return
    with pytest.raises(NoDevice, match="no CUDA device"):
        choose_device("cuda")


def test_a_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(NoDevice, match="built without CUDA"):
        choose_device("cuda")


def test_a_gpu_is_described_with_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (30, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 12)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 5)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "a GPU")
    state = describe_device(3, GPU)
    assert (state.kind, state.name, state.threads) == ("cuda", "a GPU", 3)
    assert (state.memory_total, state.memory_free) == (100, 37)


def test_the_cpu_is_described_with_the_machines_memory() -> None:
    state = describe_device(2)
    assert (state.kind, state.threads) == ("cpu", 2)
    assert 0 < state.memory_free <= state.memory_total
    assert free_memory(torch.device("mps")) > 0
    assert "untested" in describe_device(1, torch.device("mps")).name


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_a_device_is_asked_for_by_its_kind(kind: str) -> None:
    assert device_kind(torch.device(kind)) == kind
