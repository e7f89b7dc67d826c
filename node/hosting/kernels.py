"""Who computes a hosted model, and on which device: compiled code where it can, torch elsewhere.

Knows builds, shapes, devices and precisions; must not know files of models. What it became, and
why, is told in words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from node.engine.batch import CPU
from node.engine.config import LlamaConfig
from node.engine.cuda.reasons import CudaUnfit
from node.engine.cuda.shape import check_shape as check_fused_shape
from node.engine.device import DeviceChoice, NoDevice, choose_device, default_threads
from node.engine.model import LlamaModel
from node.engine.native.build import BuildSettings, find_build, native_library
from node.engine.native.library import NativeLibrary
from node.engine.native.model import NativeModel, NativeOptions, check_shape
from node.engine.native.reasons import NativeUnfit
from node.engine.runner import RunnableModel
from node.engine.weights.scheme import Precision, QuantisedSource, activation_type
from node.hosting.memory import PrecisionChoice
from node.hosting.weights import ModelWeights
from protocols.errors import UserError

KernelChoice = Literal["auto", "native", "eager"]
Say = Callable[[str], None]
Progress = Callable[[float], None]

WARM_TOKENS = 64
"""Steps of up to so many tokens are made ready when a model is loaded, longer ones when they come.
"""


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """What is wanted: `auto` is native where it works. Without a `folder` nothing is compiled.

    What is compiled goes to `fallback` where `folder` cannot be used.
    On a GPU native is the fused step in Triton, which needs no folder.
    """

    choice: KernelChoice = "auto"
    folder: Path | None = None
    threads: int = 0
    is_cache_quantised: bool = False
    device: DeviceChoice = "cpu"
    fallback: Path | None = None

    @property
    def may_be_native(self) -> bool:
        """Whether nothing here is against it."""
        is_wanted = self.choice != "eager" and self.device == "cpu"
        return is_wanted and self.folder is not None and not self.is_cache_quantised


@dataclass(frozen=True, slots=True)
class Kernels:
    """Who will compute. `library` is None for torch; `about` is for people.

    `is_fused` says that the fused step of a GPU will.
    """

    about: str
    library: NativeLibrary | None = None
    threads: int = 1
    device: torch.device = CPU
    is_fused: bool = False


def device_for(choice: DeviceChoice) -> torch.device:
    """As `choose_device`; `UserError` with the reason if it cannot be had."""
    try:
        return choose_device(choice)
    except NoDevice as reason:
        raise UserError(f"engine.device is {choice}, but {reason}") from reason


def choose_kernels(
    settings: KernelSettings, config: LlamaConfig, precision: Precision, say: Say
) -> Kernels:
    """Who computes such a model; may compile, after telling `say`.

    `UserError` with the reason if native was demanded and cannot be.
    """
    device = device_for(settings.device)
    if device != CPU:
        return _kernels_on(device, settings, config, precision)
    try:
        library = _library(settings, config, precision, say)
    except NativeUnfit as reason:
        if settings.choice == "native":
            raise UserError(f"engine.kernels is native, but {reason}") from reason
        return Kernels(f"torch, because {reason}")
    return Kernels("native", library, settings.threads or default_threads())


def describe_prospect(settings: KernelSettings, precision: PrecisionChoice) -> str:
    """Who would compute a Llama in `precision`, for people; nothing is compiled or changed.

    `UserError` as `choose_kernels`, and if the device cannot be had.
    """
    device = device_for(settings.device)
    try:
        if device != CPU:
            _check_fused_on(device, settings)
            return "Triton on CUDA"
        found = find_build(_build_settings(settings, precision))
    except (NativeUnfit, CudaUnfit) as reason:
        if settings.choice == "native":
            raise UserError(f"engine.kernels is native, but {reason}") from reason
        where = "" if device == CPU else f" on {device.type}"
        return f"torch{where}, because {reason}"
    said = "compiled" if found.is_made else "to be compiled with the first model"
    return f"native, {said}: {found.path}"


def _library(
    settings: KernelSettings, config: LlamaConfig, precision: Precision, say: Say
) -> NativeLibrary:
    build = _build_settings(settings, precision)
    check_shape(config, precision)
    return native_library(build, say)


def _build_settings(settings: KernelSettings, precision: PrecisionChoice) -> BuildSettings:
    """`NativeUnfit` if the settings are against compiled code."""
    if settings.choice == "eager":
        raise NativeUnfit("engine.kernels asks for it")
    if settings.folder is None:
        raise NativeUnfit("there is no folder for compiled kernels")
    if settings.is_cache_quantised:
        raise NativeUnfit("keys and values are kept in int8")
    if precision == "fp32":
        raise NativeUnfit("fp32 is computed by torch")
    return BuildSettings(settings.folder, settings.fallback)


def _kernels_on(
    device: torch.device, settings: KernelSettings, config: LlamaConfig, precision: Precision
) -> Kernels:
    """Who computes on a device that is not the CPU."""
    unpacked = f"; {precision} unpacked to bf16" if precision in {"int8", "int4"} else ""
    try:
        _check_fused(device, settings, config)
    except CudaUnfit as reason:
        if settings.choice == "native":
            raise UserError(f"engine.kernels is native, but {reason}") from reason
        return Kernels(f"torch on {device.type}, because {reason}{unpacked}", device=device)
    return Kernels(f"Triton on CUDA{unpacked}", device=device, is_fused=True)


def _check_fused(device: torch.device, settings: KernelSettings, config: LlamaConfig) -> None:
    """`CudaUnfit` unless the fused step can compute such a model there."""
    _check_fused_on(device, settings)
    check_fused_shape(config)


def _check_fused_on(device: torch.device, settings: KernelSettings) -> None:
    """`CudaUnfit` if the fused step can compute no model there."""
    if settings.choice == "eager":
        raise CudaUnfit("engine.kernels asks for it")
    if device.type != "cuda":
        raise CudaUnfit("the fused step is for CUDA")
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise CudaUnfit("the GPU is older than compute capability 8.0")
    if find_spec("triton") is None:
        raise CudaUnfit("Triton is not installed")
    if settings.is_cache_quantised:
        raise CudaUnfit("keys and values are kept in int8")


def build_model(
    weights: ModelWeights,
    kernels: Kernels,
    precision: Precision,
    positions: int,
    progress: Progress = lambda _fraction: None,
) -> tuple[RunnableModel, str]:
    """The model in memory, and who computes it after all, for people."""
    source = QuantisedSource(weights.stored, weights.config, precision)
    if kernels.library is not None:
        try:
            native = NativeModel(
                weights.config,
                source,
                kernels.library,
                NativeOptions(precision, positions, kernels.threads),
                progress,
            )
        except NativeUnfit as reason:
            kernels = Kernels(f"torch, because {reason}")
        else:
            return native, f"native, {native.instructions}"
    dtype = activation_type(precision)
    model = LlamaModel(weights.config, source, dtype, positions, progress, kernels.device)
    if not kernels.is_fused:
        return model, kernels.about
    # Here, because it imports Triton, which only machines with a GPU have.
    from node.engine.cuda.model import CudaModel  # noqa: PLC0415

    overlaps = torch.cuda.get_device_capability(kernels.device) >= (9, 0)
    return CudaModel(model, overlaps=overlaps, warm=WARM_TOKENS), kernels.about
