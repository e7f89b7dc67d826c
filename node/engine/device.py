"""What hardware the engine uses, for people.

Knows torch and the operating system; decides nothing.
"""

import platform
from pathlib import Path

import psutil
import torch

from node.state import DeviceState


def describe_device(threads: int) -> DeviceState:
    """The device that models run on (the CPU, for now) and its memory."""
    memory = psutil.virtual_memory()
    return DeviceState("cpu", _cpu_name(), threads, memory.total, memory.available)


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
