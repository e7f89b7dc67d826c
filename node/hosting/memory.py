"""How much memory a model will take, and what to do when it is more than there is.

Knows sizes; must not know files or how anything is loaded. All figures are made before a weight is
read.
"""

import ctypes
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from node.engine.config import LlamaConfig
from node.engine.cuda.shape import working_bytes
from node.engine.native.model import check_shape, native_bytes
from node.engine.native.reasons import NativeUnfit
from node.engine.pages import PAGE_SIZE, pages_for
from node.engine.sequence import FORCED_ROWS_MAX
from node.engine.weights.scheme import (
    Precision,
    activation_type,
    products,
    weight_bytes,
)
from protocols.errors import ModelFileError

PrecisionChoice = Literal["auto", "fp32", "bf16", "int8", "int4"]

_WITHOUT_DRAFT = "engine.speculation=auto does without it."
_WORKING_BYTES = 64 * 1024 * 1024
"""Activations of one step and logits of answers under way, roughly."""
_AUTO: Sequence[Precision] = ("bf16", "int8", "int4")
"""What `auto` tries, in this order. fp32 is not among it: twice the memory for the same text."""


@dataclass(frozen=True, slots=True)
class Load:
    """A model and how much is asked of it at a time.

    `may_be_native` says that weights may be held as the compiled step wants them, where it can
    compute the model; `is_on_gpu` that they are floats, because a GPU has no packed kernels.
    `draft` is the model that guesses, which torch computes on the CPU, as precisely and for as many
    tokens.
    """

    path: Path
    config: LlamaConfig
    slots: int
    context_length: int
    may_be_native: bool = False
    is_cache_quantised: bool = False
    is_on_gpu: bool = False
    draft: LlamaConfig | None = None

    @property
    def cache_tokens(self) -> int:
        """Whole pages for each slot, so that full contexts in all of them fit."""
        return self.slots * pages_for(self.context_length) * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of the weights, of the keys and values of all slots, and of work in progress.

    `draft` is both of the model that guesses, where it shares the memory.
    """

    weights: int
    cache: int
    work: int
    draft: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.work + self.draft


def footprint(load: Load, precision: Precision) -> Footprint:
    """What `load` will take in `precision`.

    Work is the most of what a step needs (activations, logits of forced tokens, and the largest
    matrix unpacked) and what reading needs (the largest matrix as the file has it, in fp32, beside
    what is kept of it).
    """
    largest = max(product.out * product.into for product in products(load.config))
    cache = load.cache_tokens * _bytes_per_token(load, precision)
    work = _WORKING_BYTES + 4 * largest + 4 * FORCED_ROWS_MAX * load.config.vocabulary_size
    if load.is_on_gpu:
        # What is gathered of one layer's pages at a time is memory there, and not only a promise.
        work += cache // load.config.layers
        work += working_bytes(load.config, activation_type(precision).itemsize)
    draft = 0 if load.is_on_gpu else draft_bytes(load, precision)
    return Footprint(weights=_weights(load, precision), cache=cache, work=work, draft=draft)


def draft_bytes(load: Load, precision: Precision) -> int:
    """What the model that guesses will take, room for as many tokens as the other has included."""
    if load.draft is None:
        return 0
    weights = weight_bytes(load.draft, precision, load.context_length)
    return weights + cache_bytes(load.draft, load.cache_tokens, precision)


def require_draft_room(load: Load, precision: Precision, available: int) -> None:
    """`ModelFileError` with the figures if the model that guesses does not fit beside a GPU."""
    needed = draft_bytes(load, precision)
    if load.is_on_gpu and needed > available:
        raise ModelFileError(
            f"the model that guesses for {load.path} needs {_gib(needed)} of the machine's memory, "
            f"but {_gib(available)} is free. {_WITHOUT_DRAFT}"
        )


def _weights(load: Load, precision: Precision) -> int:
    if load.is_on_gpu and precision in {"int8", "int4"}:
        precision = "bf16"
    if load.may_be_native:
        with suppress(NativeUnfit):
            check_shape(load.config, precision)
            return native_bytes(load.config, precision, load.context_length)
    return weight_bytes(load.config, precision, load.context_length)


def cache_bytes(config: LlamaConfig, tokens: int, precision: Precision) -> int:
    """Bytes of the keys and values of `tokens` tokens."""
    return tokens * config.cache_values_per_token * activation_type(precision).itemsize


def _bytes_per_token(load: Load, precision: Precision) -> int:
    """Of keys and values; in int8 each vector of a head has a scale in fp32 beside it."""
    if not load.is_cache_quantised:
        return cache_bytes(load.config, 1, precision)
    values = load.config.cache_values_per_token
    return values + 4 * values // load.config.head_dimension


def choose_precision(
    wanted: PrecisionChoice, kept_as: Precision | None, load: Load, available: int
) -> Precision:
    """What to hold the model in: what is asked for, or for `auto` the best that fits.

    `auto` keeps a packed file as it is packed, because anything wider holds the same numbers, and
    goes lower only if it must. On a GPU, where nothing stays packed, it is bf16. `ModelFileError`
    with the figures if nothing allowed fits into `available` bytes.
    """
    candidates: Sequence[Precision]
    if wanted != "auto":
        candidates = (wanted,)
    elif load.is_on_gpu:
        candidates = ("bf16",)
    elif kept_as is not None:
        candidates = _AUTO[_AUTO.index(kept_as) :]
    else:
        candidates = _AUTO
    for precision in candidates:
        if footprint(load, precision).total <= available:
            return precision
    raise _too_large(load, candidates[-1], available)


def _too_large(load: Load, precision: Precision, available: int) -> ModelFileError:
    needed = footprint(load, precision)
    draft = f", {_gib(needed.draft)} for the model that guesses" if needed.draft else ""
    return ModelFileError(
        f"{load.path} needs {_gib(needed.total)} of memory ({_gib(needed.weights)} for weights in "
        f"{precision}, {_gib(needed.cache)} for {load.slots} answers of {load.context_length} "
        f"tokens{draft}), but {_gib(available)} is free. {_what_fits(load, precision, available)}"
    )


def _what_fits(load: Load, precision: Precision, available: int) -> str:
    """The least that has to change: the model that guesses, the precision, else the number of
    answers, else the context.
    """
    if load.draft is not None:
        alone = replace(load, draft=None)
        if footprint(alone, precision).total <= available:
            return f"Without the model that guesses it would fit: {_WITHOUT_DRAFT}"
        return _what_fits(alone, precision, available)
    for other in _AUTO:
        needed = footprint(load, other)
        if needed.total <= available and needed.total < footprint(load, precision).total:
            return f"In {other} it would fit, with {_gib(needed.total)}."
    smallest = footprint(load, "int4")
    room = available - smallest.weights - smallest.work
    tokens = room // _bytes_per_token(load, "int4")
    if tokens >= load.context_length:
        slots = tokens // load.context_length
        return f"In int4 {slots} answers of {load.context_length} tokens would fit."
    if tokens > 0:
        return f"In int4 one answer of {tokens} tokens would fit."
    return f"Even in int4 it needs {_gib(smallest.weights + smallest.work)} without any answer."


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def return_free_memory() -> None:
    """Give pages that loading used and freed back to the system, where its library can.

    glibc keeps them else: 30 to 100 MB beside the weights of a model of 135 million parameters.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
