"""From a trained B to a folder that is served, and back.

Knows the compact form of an adapter; must not know training.
"""

from pathlib import Path

from node.engine.adapters.weights import PARTS, PartName
from node.engine.weights.packings import Int8Rows
from node.engine.weights.quantise import quantise_int8
from node.hosting.compact_adapter import COMPACT_CONFIG, CompactConfig, read_compact, write_compact
from node.hosting.json_file import read_json
from node.training.base import FrozenBase
from node.training.low_rank import AdapterShape, LowRankParameters


def packed(adapter: LowRankParameters) -> dict[tuple[int, PartName], Int8Rows]:
    """B in signed bytes, by layer and part."""
    return {
        (layer, part): quantise_int8(adapter.part(layer, part).cpu())
        for layer in range(adapter.config.layers)
        for part in PARTS
    }


def round_to_bytes(adapter: LowRankParameters) -> None:
    """Make B what it will be once it was packed: what is measured then is what is served."""
    for (layer, part), rows in packed(adapter).items():
        adapter.set_part(layer, part, rows.dequantised())


def save_adapter(
    folder: Path,
    adapter: LowRankParameters,
    *,
    base_digest: str,
    licence: str,
    invocation: tuple[int, ...] = (),
) -> None:
    """Write the compact form of `adapter` into `folder`."""
    shape = adapter.shape
    settings = CompactConfig(
        format="dslm-adapter-1",
        seed=shape.seed,
        rank=shape.rank,
        scale=shape.scale,
        a_for=shape.a_for,
        invocation=invocation,
        base=base_digest,
        licence=licence,
    )
    write_compact(folder, settings, packed(adapter))


def load_adapter(folder: Path, base: FrozenBase) -> LowRankParameters:
    """The adapter in `folder`, to be scored or trained on. `ModelFileError` as `read_compact`."""
    settings = read_json(folder / COMPACT_CONFIG, CompactConfig)
    shape = AdapterShape(settings.seed, settings.rank, settings.scale, settings.a_for)
    read = read_compact(folder, base.config)
    adapter = LowRankParameters(base.config, shape, base.device, base.dtype)
    for (layer, part), pair in read.parts.items():
        adapter.set_part(layer, part, pair.unscaled_b().float())
    return adapter
