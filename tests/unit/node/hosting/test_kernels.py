"""Who computes on a GPU, and why not the fused step; decided without a GPU."""

from dataclasses import replace

import pytest
import torch

from node.engine.config import LlamaConfig, Variant
from node.engine.cuda.shape import working_bytes
from node.hosting import kernels
from node.hosting.kernels import KernelSettings, choose_kernels
from protocols.errors import UserError

SMOLLM2 = LlamaConfig(49152, 576, 1536, 30, 9, 3, 64, 8192, 1e-5, 1e5)


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(kernels, "find_spec", lambda name: name)


def chosen(
    settings: KernelSettings, config: LlamaConfig = SMOLLM2, precision: str = "bf16"
) -> kernels.Kernels:
    return choose_kernels(settings, config, precision, lambda _text: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", ["auto", "native"])
def test_a_llama_is_computed_by_the_fused_step(choice: str) -> None:
    found = chosen(KernelSettings(choice, device="cuda"))  # type: ignore[arg-type]
    assert found.is_fused
    assert found.device == torch.device("cuda", 0)
    assert found.about == "Triton on CUDA"


def test_it_is_said_that_packed_weights_are_unpacked() -> None:
    assert "int4 unpacked to bf16" in chosen(KernelSettings(device="cuda"), precision="int4").about


@pytest.mark.parametrize(
    ("settings", "config", "reason"),
    [
        (KernelSettings("eager"), SMOLLM2, "engine.kernels asks for it"),
        (KernelSettings(is_cache_quantised=True), SMOLLM2, "int8"),
        (KernelSettings(), replace(SMOLLM2, variant=Variant(has_input_biases=True)), "Llamas only"),
        (KernelSettings(), replace(SMOLLM2, head_dimension=96), "head_dimension 96"),
        (KernelSettings(), replace(SMOLLM2, intermediate_size=1540), "intermediate_size 1540"),
    ],
)
def test_what_it_does_not_know_is_left_to_torch_on_the_gpu(
    settings: KernelSettings, config: LlamaConfig, reason: str
) -> None:
    found = chosen(replace(settings, device="cuda"), config)
    assert not found.is_fused
    assert found.device.type == "cuda"
    assert reason in found.about
    if settings.choice != "eager":
        with pytest.raises(UserError, match="native, but"):
            chosen(replace(settings, device="cuda", choice="native"), config)


def test_old_gpus_and_machines_without_triton_are_left_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda _name: None)
    assert "Triton is not installed" in chosen(KernelSettings(device="auto")).about
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    assert "older than" in chosen(KernelSettings(device="cuda")).about


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"engine\.device is cuda, but torch finds no CUDA device"):
        chosen(KernelSettings(device="cuda"))
    assert chosen(KernelSettings(device="auto")).device.type == "cpu"


def test_the_working_memory_of_smollm2_is_known() -> None:
    assert 60e6 < working_bytes(SMOLLM2, 2) < 90e6
