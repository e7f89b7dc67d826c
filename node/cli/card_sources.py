"""Where `dslm card` gets cards from: a file, or the running node.

Knows paths and the API; must not know what is shown.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli.settings import in_swarm
from node.cli.verb import Invocation
from node.state import CardsState, CardState
from protocols.errors import (
    ModelFileError,
    NetworkError,
    NotRunning,
    ProtocolError,
    UnknownModel,
    UserError,
)

if TYPE_CHECKING:
    from coordinator.ports import Encoder
    from node.card_file import CardFile
    from protocols.records import CapabilityCard


@dataclass(frozen=True, slots=True)
class Source:
    """What was asked about: the cards that are `published` under `name`, or a `file`."""

    name: str
    published: tuple[CardState, ...] = ()
    file: "CardFile | None" = None

    async def card(self, encoder: "Encoder | None") -> "CapabilityCard":
        """The card, or the one that the file would make with this encoder."""
        from node.card_content import card_of_file

        if self.file is not None:
            return await card_of_file(self.name, self.file, encoder)
        return opened(self.published[0])


def find_source(invocation: Invocation, which: str, swarm: str) -> Source:
    """The file that `which` names, or the specialist. `UserError` if it is neither."""
    from node.card_file import read_card_file

    path = Path(which)
    if path.is_dir():
        path /= "card.toml"
    if path.suffix == ".toml" or path.is_file():
        file = read_card_file(path)
        return Source(str(path), file=file)
    try:
        state = _ask(invocation, f"/api/v1/cards?specialist={_quoted(which)}", swarm)
    except NotRunning as error:
        raise NotRunning(
            f"there is no file {which}, and no node runs here that could know a specialist of this "
            f"name: {error}"
        ) from error
    if not state.cards:
        raise UnknownModel(which)
    return Source(which, published=state.cards)


def known_cards(invocation: Invocation, swarm: str) -> "tuple[CapabilityCard, ...]":
    """One card of each specialist that the running node knows; none if no node runs."""
    try:
        state = _ask(invocation, "/api/v1/cards", swarm)
    except (NotRunning, NetworkError):
        return ()
    found = []
    for one in state.cards:
        try:
            found.append(opened(one))
        except ProtocolError:
            continue  # our own node checked it: it is of a later version, and of no use here
    return tuple(found)


def opened(state: CardState) -> "CapabilityCard":
    """The card inside, its signature checked. `ProtocolError` if it is none."""
    from protocols.records import CapabilityCard, open_sealed

    record = open_sealed(state.sealed)
    if not isinstance(record, CapabilityCard):
        raise ProtocolError("this record is no card")
    return record


def load_encoder(invocation: Invocation) -> "Encoder":
    """The sentence encoder of this machine; `UserError` if it was not fetched."""
    from node.hosting.fetch import default_encoder_paths

    paths = default_encoder_paths(invocation.load().config.paths.models)
    if not paths.exist:
        raise UserError(
            "the sentence encoder is not on this machine, and prototypes are made with it: get it "
            "with `dslm pull minilm`"
        )
    from node.hosting.encoder import MiniLmEncoder

    try:
        # torch would compute faster, but importing it takes longer than a few texts.
        return MiniLmEncoder(paths.model, paths.tokenizer, runtime="onnx")
    except ModelFileError as error:
        raise UserError(f"{error} `dslm pull minilm` does") from error


def _ask(invocation: Invocation, path: str, swarm: str) -> CardsState:
    if swarm and "?" in path:
        path = f"{path}&swarm={_quoted(swarm)}"
        return invocation.client().get(path, CardsState)
    return invocation.client().get(in_swarm(path, swarm), CardsState)


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")
