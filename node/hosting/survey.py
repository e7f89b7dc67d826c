"""What a node would compute with on this machine, told by a program of its own.

Knows devices and kernels; must not know models. `dslm doctor` runs it as `python -m
node.hosting.survey ORDER` and reads its stdout, so that no verb has to load torch itself.
"""

import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from node.config import EngineConfig, Precision
from node.engine.device import default_threads, describe_device
from node.hosting.kernels import KernelSettings, describe_prospect, device_for
from node.state import DeviceState
from protocols.errors import UserError


class Order(Struct, frozen=True):
    """The settings to look with; `precisions` are those that models are to be held in.

    `kernels` and `own_kernels` are as in `Paths`.
    """

    engine: EngineConfig
    kernels: str
    own_kernels: str
    precisions: tuple[Precision, ...]


class Survey(Struct, frozen=True):
    """What was found; `kernels` says by precision who computes. `problem` is for people."""

    device: DeviceState | None = None
    kernels: dict[str, str] = {}
    problem: str = ""


def look(order: Order) -> Survey:
    """Changes nothing."""
    engine = order.engine
    settings = KernelSettings(
        engine.kernels,
        Path(order.kernels),
        engine.threads,
        is_cache_quantised=engine.cache == "int8",
        device=engine.device,
        fallback=Path(order.own_kernels),
    )
    device = None
    try:
        found = device_for(engine.device)
        device = describe_device(engine.threads or default_threads(), found)
        kernels: dict[str, str] = {
            one: describe_prospect(settings, one) for one in order.precisions
        }
    except UserError as error:
        return Survey(device, problem=str(error))
    return Survey(device, kernels)


def main() -> None:
    """Print what is found, as JSON."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(look(order)) + b"\n")


if __name__ == "__main__":
    main()
