"""What hardware there is for the engine: for choosing, and for people.

Knows torch and the operating system; must not know models.
"""

import platform
from pathlib import Path
from typing import Literal

import psutil
import torch

from node.engine.batch import CPU
from node.state import DeviceState

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]


class NoDevice(Exception):
    """Why the device that was asked for cannot be had: no full stop, no capital."""


def choose_device(choice: DeviceChoice) -> torch.device:
    """The device that was asked for; for `auto` a CUDA GPU where there is one, else the CPU.

    `NoDevice` with the reason. MPS (Apple's GPUs) is never chosen unasked: nobody has tested it.
    """
    if choice == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else CPU
    if choice == "cuda":
        if torch.version.cuda is None:
            raise NoDevice("this torch was built without CUDA")
        if not torch.cuda.is_available():
            raise NoDevice("torch finds no CUDA device")
        return torch.device("cuda", 0)
    if choice == "mps":
        if not torch.backends.mps.is_available():
            raise NoDevice("torch finds no MPS device")
        return torch.device("mps")
    return CPU


def device_kind(device: torch.device) -> DeviceChoice:
    """By what name it is asked for."""
    return "cuda" if device.type == "cuda" else "mps" if device.type == "mps" else "cpu"


def free_memory(device: torch.device) -> int:
    """Bytes that a model can have there now. MPS shares the machine's."""
    if device.type == "cuda":
        # What torch's allocator keeps from a model that is gone counts as free.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return int(psutil.virtual_memory().available)


def describe_device(threads: int, device: torch.device = CPU) -> DeviceState:
    """The device that models run on and its memory."""
    if device.type == "cuda":
        total = torch.cuda.mem_get_info(device)[1]
        return DeviceState(
            "cuda", torch.cuda.get_device_name(device), threads, total, free_memory(device)
        )
    name = "Apple GPU (untested)" if device.type == "mps" else _cpu_name()
    return DeviceState(
        device.type, name, threads, psutil.virtual_memory().total, free_memory(device)
    )


def default_threads() -> int:
    """One for each physical core, but no more than this process may use."""
    physical = psutil.cpu_count(logical=False) or 1
    return max(1, min(physical, torch.get_num_threads()))


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
