"""An adapter in a folder, in whichever form: found, read, checked against its base.

Knows which forms there are; `node.hosting.peft` and `node.hosting.compact_adapter` know each.
"""

from pathlib import Path

from node.engine.adapters.frozen import MakeA, frozen_a
from node.engine.adapters.weights import Adapter, complaints
from node.engine.config import LlamaConfig
from node.hosting.compact_adapter import COMPACT_CONFIG, read_compact
from node.hosting.peft import PEFT_CONFIG, read_peft
from protocols.errors import ModelFileError


def read_adapter(folder: Path, config: LlamaConfig, make_a: MakeA = frozen_a) -> Adapter:
    """The adapter in `folder`, for a model of the shape `config`. `make_a` as in `read_compact`.

    `ModelFileError` when there is none, when it is damaged or asks for something that we do not
    compute (which is named), or when it was made for a model of another shape.
    """
    if (folder / COMPACT_CONFIG).is_file():
        adapter = read_compact(folder, config, make_a)
    elif (folder / PEFT_CONFIG).is_file():
        adapter = read_peft(folder, config)
    else:
        raise ModelFileError(
            f"{folder} holds no adapter: neither {PEFT_CONFIG} (PEFT) nor {COMPACT_CONFIG}."
        )
    for complaint in complaints(adapter, config):
        raise ModelFileError(f"{folder} is no adapter for this model: {complaint}.")
    return adapter
