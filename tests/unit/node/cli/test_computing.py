"""What `dslm doctor` says about device and kernels, and what if torch cannot be asked."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from node.cli import computing
from node.config import ModelConfig, NodeConfig
from node.paths import Paths
from node.state import Check, DeviceState, HostedState

CPU = DeviceState("cpu", "Some CPU", 2, 8_000_000_000, 4_000_000_000)


_ANY = ModelConfig("any")


def checks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: object, *models: ModelConfig
) -> list[Check]:
    """With a program that answers so, or raises."""

    def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[bytes]":
        asked.append(msgspec.json.decode(command[-1]))
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess(command, 0, msgspec.json.encode(answer))

    asked: list[dict[str, object]] = []
    monkeypatch.setattr(subprocess, "run", run)
    config = NodeConfig(Paths(tmp_path, tmp_path, tmp_path, tmp_path), models=models)
    found = list(computing.checks(config))
    default = config.engine.precision
    assert asked[0]["precisions"] == sorted({one.precision or default for one in models or [_ANY]})
    return found


def test_the_machine_on_a_line_and_each_precision_on_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = {"device": CPU, "kernels": {"fp32": "torch, because", "int4": "native, compiled"}}
    models = (ModelConfig("a", precision="int4"), ModelConfig("b"))
    device, one, other = checks(monkeypatch, tmp_path, answer, *models)
    assert device.detail == "CPU, Some CPU, 2 threads, 4.0 GB of 8.0 GB memory free"
    assert [one.detail, other.detail] == [
        "models in fp32: torch, because",
        "models in int4: native, compiled",
    ]
    assert device.ok
    assert other.ok


@pytest.mark.parametrize("device", [None, CPU])
def test_what_the_settings_demand_in_vain_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: DeviceState | None
) -> None:
    found = checks(monkeypatch, tmp_path, {"device": device, "problem": "no such thing"})
    assert (found[-1].ok, found[-1].detail) == (False, "no such thing")
    assert found[-1].name == ("kernels" if device else "device")
    assert len(found) == (2 if device else 1)


@pytest.mark.parametrize(
    "answer", [subprocess.CalledProcessError(1, "x"), OSError("no python"), {"kernels": 3}]
)
def test_a_torch_that_cannot_be_asked_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: object
) -> None:
    (check,) = checks(monkeypatch, tmp_path, answer)
    assert not check.ok
    assert "torch could not be asked" in check.detail
    assert check.fix


def test_a_running_node_tells_it_itself() -> None:
    hosted = HostedState(
        "smollm2", "d", "int4", 2048, 1, 475_000_000, (), 0, 0, 8, kernels="native, AVX2"
    )
    device, model = computing.checks_of(CPU, (hosted,))
    assert device.name == "device"
    assert model.detail == "smollm2: native, AVX2, int4, 475 MB with room for answers"
    compiled = msgspec.structs.replace(hosted, kernels_file="/k/dslm-step-1.so")
    _, model = computing.checks_of(CPU, (compiled,))
    assert model.detail.endswith("with room for answers; /k/dslm-step-1.so")
