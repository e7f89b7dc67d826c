"""Trains the head that the router ships: scripts/bench train_router --data DIR [--cache DIR].

Minutes on one core, nearly all of them for encoding 9,000 prompts; the same data and encoder give
the same file. See `routing_training` for what is fitted.
"""

import argparse
import os
import sys
from pathlib import Path

from coordinator.routing.head import dump_head
from node.config_reader import Overrides, load_process_config
from node.hosting.encoder import MiniLmEncoder
from node.hosting.fetch import default_encoder_paths
from routing_data import Data, Vectors
from routing_training import load_training, train_head

PLACE = Path(__file__).parent.parent / "coordinator" / "routing" / "head.npz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the router's two scripts have in common."""
    parser.add_argument("--data", type=Path, default=os.environ.get("DSLM_DATA"))  # noqa: TID251
    parser.add_argument("--models", type=Path, default=None, help="where the encoder lies")
    parser.add_argument("--cache", type=Path, default=None, help="a folder for vectors")


def open_encoder(models: Path | None) -> MiniLmEncoder:
    """The encoder that dslm uses by default, below `models` or where a node has its models."""
    config = load_process_config(Overrides()).config
    paths = default_encoder_paths(models or config.paths.models)
    return MiniLmEncoder(paths.model, paths.tokenizer)


def main() -> int:
    """Write the head; 2 if there is no data."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--out", type=Path, default=PLACE)
    chosen = parser.parse_args()
    if chosen.data is None:
        print("--data or DSLM_DATA must name the folder with the data sets", file=sys.stderr)
        return 2
    vectors = Vectors(open_encoder(chosen.models), chosen.cache)
    head = train_head(load_training(Data(Path(chosen.data)), vectors))
    data = dump_head(head)
    chosen.out.write_bytes(data)
    print(f"{chosen.out}: {len(data):,} bytes")
    for name in (
        "card_weights",
        "description_guess",
        "fit_weights",
        "cut_weights",
        "chain_weights",
    ):
        print(f"  {name} {getattr(head, name).round(3).tolist()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
