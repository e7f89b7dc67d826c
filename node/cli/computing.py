"""What `dslm doctor` says about the machine: device, threads, memory and kernels.

Knows the settings and how to ask; must not load torch: a program of its own looks.
"""

import subprocess
import sys
from collections.abc import Iterator

import msgspec

from node.config import NodeConfig
from node.quantities import format_device, format_size
from node.state import Check, DeviceState, HostedState

_SECONDS_MAX = 120.0
_FIX = "`dslm config env` lists engine.device and engine.kernels; `scripts/setup` mends packages"


class _Survey(msgspec.Struct, frozen=True):
    """As `node.hosting.survey` prints it."""

    device: DeviceState | None = None
    kernels: dict[str, str] = {}
    problem: str = ""


def checks(config: NodeConfig) -> Iterator[Check]:
    """What a node with these settings would compute with; takes the seconds that torch takes."""
    precisions = {one.precision or config.engine.precision for one in config.models}
    order = {
        "engine": config.engine,
        "kernels": str(config.paths.kernels),
        "own_kernels": str(config.paths.own_kernels),
        "precisions": sorted(precisions or {config.engine.precision}),
    }
    command = [sys.executable, "-m", "node.hosting.survey", msgspec.json.encode(order).decode()]
    try:
        done = subprocess.run(  # noqa: S603  (our own program, no shell)
            command, capture_output=True, timeout=_SECONDS_MAX, check=True
        )
        survey = msgspec.json.decode(done.stdout, type=_Survey)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        yield Check("device", False, f"torch could not be asked: {error}", _FIX)
        return
    if survey.device is not None:
        yield Check("device", True, format_device(survey.device))
    if survey.problem:
        yield Check("kernels" if survey.device else "device", False, survey.problem, _FIX)
    for precision, said in survey.kernels.items():
        yield Check("kernels", True, f"models in {precision}: {said}")


def checks_of(device: DeviceState, hosted: tuple[HostedState, ...]) -> Iterator[Check]:
    """What a running node computes with."""
    yield Check("device", True, format_device(device))
    for model in hosted:
        detail = f"{model.id}: {model.kernels or 'torch'}, {model.precision}, "
        file = f"; {model.kernels_file}" if model.kernels_file else ""
        size = format_size(model.size)
        yield Check("kernels", True, f"{detail}{size} with room for answers{file}")
