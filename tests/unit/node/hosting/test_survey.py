"""What a node would compute with, before it runs; nothing is compiled for it."""

from pathlib import Path

import pytest
import torch

from node.config import EngineConfig
from node.engine.native.build import Build
from node.engine.native.reasons import NativeUnfit
from node.hosting import kernels
from node.hosting.survey import Order, look


def order(tmp_path: Path, *precisions: str, **settings: object) -> Order:
    engine = EngineConfig(device="cpu", **settings)  # type: ignore[arg-type]
    return Order(engine, str(tmp_path / "kernels"), str(tmp_path / "own"), precisions)  # type: ignore[arg-type]


@pytest.mark.parametrize("built", [False, True])
def test_it_says_who_computes_what_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, built: bool
) -> None:
    build = Build(tmp_path / "kernels" / "step.so", built)
    monkeypatch.setattr(kernels, "find_build", lambda _settings: build)
    found = look(order(tmp_path, "fp32", "int4", threads=3))
    assert found.device is not None
    assert (found.device.kind, found.device.threads) == ("cpu", 3)
    assert 0 < found.device.memory_free <= found.device.memory_total
    said = "compiled" if built else "to be compiled with the first model"
    assert found.kernels == {
        "fp32": "torch, because fp32 is computed by torch",
        "int4": f"native, {said}: {build.path}",
    }
    assert not found.problem
    assert not (tmp_path / "kernels").exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"kernels": "eager"}, "engine.kernels asks for it"), ({"cache": "int8"}, "kept in int8")],
)
def test_it_says_why_torch_computes(
    tmp_path: Path, settings: dict[str, object], reason: str
) -> None:
    (said,) = look(order(tmp_path, "int4", **settings)).kernels.values()
    assert said.startswith("torch, because")
    assert reason in said


def test_what_is_demanded_and_cannot_be_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfit(_settings: object) -> Build:
        raise NativeUnfit("there is no C++ compiler (g++)")

    monkeypatch.setattr(kernels, "find_build", unfit)
    found = look(order(tmp_path, "int4", kernels="native"))
    assert found.problem == "engine.kernels is native, but there is no C++ compiler (g++)"
    assert found.device is not None
    assert look(order(tmp_path, "int4")).kernels == {
        "int4": "torch, because there is no C++ compiler (g++)"
    }


def test_a_device_that_is_not_there_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    found = look(Order(EngineConfig(device="mps"), str(tmp_path), str(tmp_path), ("int4",)))
    assert found.device is None
    assert found.problem == "engine.device is mps, but torch finds no MPS device"


def test_on_a_gpu_it_is_triton_or_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "device_for", lambda _choice: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(kernels, "find_spec", lambda name: name)
    settings = kernels.KernelSettings("auto", tmp_path, device="cuda")
    assert kernels.describe_prospect(settings, "bf16") == "Triton on CUDA"
    monkeypatch.setattr(kernels, "find_spec", lambda _name: None)
    said = kernels.describe_prospect(settings, "bf16")
    assert said == "torch on cuda, because Triton is not installed"
