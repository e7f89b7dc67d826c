"""Who computes a hosted model: the compiled step where it can, torch everywhere else.

Knows builds, shapes and precisions; must not know files of models. Which of the two it became, and
why, is told in words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from node.engine.config import LlamaConfig
from node.engine.device import default_threads
from node.engine.model import LlamaModel
from node.engine.native.build import BuildSettings, native_library
from node.engine.native.library import NativeLibrary
from node.engine.native.model import NativeModel, NativeOptions, check_shape
from node.engine.native.reasons import NativeUnfit
from node.engine.runner import RunnableModel
from node.engine.weights.scheme import Precision, QuantisedSource, activation_type
from node.hosting.weights import ModelWeights
from protocols.errors import UserError

KernelChoice = Literal["auto", "native", "eager"]
Say = Callable[[str], None]
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """What is wanted: `auto` is native where it works. Without a `folder` nothing is compiled."""

    choice: KernelChoice = "auto"
    folder: Path | None = None
    threads: int = 0
    is_cache_quantised: bool = False

    @property
    def may_be_native(self) -> bool:
        """Whether nothing here is against it."""
        return self.choice != "eager" and self.folder is not None and not self.is_cache_quantised


@dataclass(frozen=True, slots=True)
class Kernels:
    """Who will compute. `library` is None for torch; `about` is for people."""

    about: str
    library: NativeLibrary | None = None
    threads: int = 1


def choose_kernels(
    settings: KernelSettings, config: LlamaConfig, precision: Precision, say: Say
) -> Kernels:
    """Who computes such a model; may compile, after telling `say`.

    `UserError` with the reason if native was demanded and cannot be.
    """
    try:
        library = _library(settings, config, precision, say)
    except NativeUnfit as reason:
        if settings.choice == "native":
            raise UserError(f"engine.kernels is native, but {reason}") from reason
        return Kernels(f"torch, because {reason}")
    return Kernels("native", library, settings.threads or default_threads())


def _library(
    settings: KernelSettings, config: LlamaConfig, precision: Precision, say: Say
) -> NativeLibrary:
    if settings.choice == "eager":
        raise NativeUnfit("engine.kernels asks for it")
    if settings.folder is None:
        raise NativeUnfit("there is no folder for compiled kernels")
    if settings.is_cache_quantised:
        raise NativeUnfit("keys and values are kept in int8")
    check_shape(config, precision)
    return native_library(BuildSettings(settings.folder), say)


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
            model = NativeModel(
                weights.config,
                source,
                kernels.library,
                NativeOptions(precision, positions, kernels.threads),
                progress,
            )
        except NativeUnfit as reason:
            kernels = Kernels(f"torch, because {reason}")
        else:
            return model, f"native, {model.instructions}"
    dtype = activation_type(precision)
    return LlamaModel(weights.config, source, dtype, positions, progress), kernels.about
