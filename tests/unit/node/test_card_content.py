"""Cards are filled from settings and card files, with prototypes, exemplars, and made to fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from node.card_content import (
    card_of_file,
    fit_card,
    merged,
    normal_domains,
    prototypes_wanted,
    sealed_size,
)
from node.card_file import CardFile, FilePrototypes, format_card_file
from node.cards import CardMaker, hosted_state
from node.config import ModelConfig
from node.hosting.exemplars import choose_exemplars
from protocols import limits
from protocols.errors import ConfigError, ModelFileError, RecordError
from protocols.records import MeasuredScore, Prototype


class LetterEncoder:
    """A text points where its letters do."""

    digest = "letters"

    def __init__(self) -> None:
        self.encoded: list[str] = []

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += texts
        counts = np.array([[text.count(chr(97 + at)) for at in range(26)] for text in texts])
        vectors = counts + 1e-3
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit.astype(np.float32)


@dataclass(frozen=True)
class Hosted:
    """As much of a `HostedModel` as a card shows."""

    specialist: str = "lab/x"
    model_digest: str = "m" * 64
    base: str = "base"
    precision: str = "fp32"
    context_length: int = 2_048
    parameters: int = 7
    size: int = 1
    weights_size: int = 1
    licence: str = "apache-2.0"
    slots: int = 1
    kernels: str = ""
    kernels_file: str = ""
    adapter: Any = None
    base_digest: str = "m" * 64
    loop: object = None


@dataclass(frozen=True)
class HostedLora:
    digest: str = "a" * 64
    invocation: tuple[int, ...] = ()


LETTERS = tuple(letter * 3 for letter in "abcdefghij")
SCORE = MeasuredScore("p" * 90, "m" * 90, 0.5, 9, "d" * 64, "b" * 90)
OTHERS = FilePrototypes("letters", (Prototype(b"\x01" * 26, 0.1),))


async def made(settings: ModelConfig, model: Hosted | None = None) -> Any:
    maker = CardMaker(LetterEncoder())
    return await maker.card(model or Hosted(), settings)  # type: ignore[arg-type]


async def test_settings_alone_fill_a_card() -> None:
    settings = ModelConfig("x", domains=("Law / Tax",), description="aaa", examples=LETTERS)
    card = await made(settings)
    assert card.domains == ("law/tax",)
    assert card.encoder == "letters"
    assert 4 <= len(card.prototypes) <= 8
    assert set(card.exemplars) == set(LETTERS)
    assert (card.modalities, card.languages, card.licence) == (("text",), (), "apache-2.0")
    assert (card.adapter, card.base_digest, card.is_activated) == ("", "m" * 64, False)
    assert hosted_state(Hosted(), card).domains == ("law/tax",)  # type: ignore[arg-type]


async def test_a_card_file_says_what_the_settings_do_not(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    file = CardFile("from the file", ("law",), ("en",), licence="mit", exemplars=("aaa", "bbb"))
    path.write_text(format_card_file(replace(file, scores=(SCORE,))))
    card = await made(ModelConfig("x", card=str(path)))
    assert (card.description, card.domains, card.languages) == ("from the file", ("law",), ("en",))
    assert (card.licence, card.scores) == ("mit", (SCORE,))
    assert set(card.exemplars) == {"aaa", "bbb"}
    card = await made(ModelConfig("x", card=str(path), domains=("tax",), examples=("ccc",)))
    assert (card.description, card.domains) == ("from the file", ("tax",))
    assert card.exemplars == ("ccc",)


async def test_an_adapter_shows_its_digests_and_that_it_is_activated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Hosted(adapter=HostedLora(invocation=(1, 2)), base_digest="b" * 64)
    card = await made(ModelConfig("x", adapter="here", domains=("law",)), model)
    assert (card.adapter, card.base_digest, card.is_activated) == ("a" * 64, "b" * 64, True)
    path = tmp_path / "card.toml"
    path.write_text('domains = ["law"]\nactivated = false')
    card = await made(ModelConfig("x", adapter="here", card=str(path)), model)
    assert card.is_activated
    assert "has invocation tokens: the adapter counts" in caplog.text


async def test_an_adapter_without_domains_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text("")
    with pytest.raises(ConfigError, match="needs domains"):
        await made(ModelConfig("x", adapter="here", card=str(path)), Hosted(adapter=HostedLora()))
    path.write_text("x = ")
    with pytest.raises(ModelFileError, match="no card file"):
        await made(ModelConfig("x", card=str(path)))


async def test_without_domains_it_is_a_plain_base() -> None:
    card = await made(ModelConfig("x", description="all", examples=("aaa",)))
    assert card.is_base
    assert (card.prototypes, card.exemplars, card.encoder) == ((), (), "")


async def test_prototypes_of_the_file_count_for_their_encoder_only() -> None:
    file = CardFile("about", ("law",), exemplars=("aaa", "bbb"), encoded=OTHERS)
    encoder = LetterEncoder()
    card = await card_of_file("x", file, encoder)
    assert card.prototypes == OTHERS.prototypes
    assert card.exemplars == ("aaa", "bbb")
    assert encoder.encoded == []
    card = await card_of_file("x", replace(file, encoded=replace(OTHERS, encoder="e2")), encoder)
    assert (card.encoder, len(card.prototypes)) == ("letters", 3)
    card = await card_of_file("x", file, None)
    assert (card.encoder, card.prototypes) == ("letters", OTHERS.prototypes)
    card = await card_of_file("x", replace(file, encoded=None), None)
    assert (card.encoder, card.prototypes, card.exemplars) == ("", (), ("aaa", "bbb"))


async def test_exemplars_are_left_out_first_but_for_one_of_each_prototype() -> None:
    prototypes = tuple(Prototype(bytes([at + 1]) * 384, 0.1) for at in range(8))
    file = CardFile("about", ("law",), exemplars=tuple(chr(97 + at) * 400 for at in range(10)))
    card = await card_of_file(
        "x", replace(file, encoded=FilePrototypes("letters", prototypes)), LetterEncoder()
    )
    fitting, left_out = fit_card(card)
    assert (fitting, left_out) == (card, "")
    fitting, left_out = fit_card(replace(card, scores=(SCORE,)))
    assert left_out == "the last 1 of 10 exemplars left out: a card has at most 8,192 bytes"
    assert fitting.exemplars == card.exemplars[:9]
    fitting, left_out = fit_card(replace(card, scores=(SCORE,) * 5))
    assert left_out.startswith("the last 2 of 10 exemplars, the last 3 of 5 scores left out")
    fitting, left_out = fit_card(
        replace(card, scores=(SCORE,), domains=("d" * 96,) * 8, languages=("l" * 96,) * 8)
    )
    assert len(fitting.exemplars) == len(fitting.prototypes) < 8
    assert "prototypes" in left_out
    assert sealed_size(fitting) <= limits.RECORD_BYTES_MAX
    with pytest.raises(RecordError, match="shorten"):
        fit_card(replace(card, description="é" * 6_000))


def test_so_many_prototypes() -> None:
    assert [prototypes_wanted(count) for count in (1, 3, 4, 31, 40, 64, 600)] == [
        *(1, 3, 4, 4, 5, 8, 8),
    ]


def test_domains_are_normal() -> None:
    assert normal_domains(["A/ b", "a/b", "//", "a/b/c/d/e"]) == ("a/b", "a/b/c/d")


def test_long_values_of_the_settings_are_cut() -> None:
    said = merged(ModelConfig("x", description="é" * 500, licence="l" * 200), CardFile())
    assert said.description == "é" * 300
    assert len(said.licence) == 96


def test_each_prototype_has_its_exemplar_and_whole_texts_go_first() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 0, 1, 2]]
    texts = ["near but long " + "x" * 400, "near", "near", "other", "far"]
    chosen = choose_exemplars(texts, vectors, np.eye(4, dtype=np.float32)[:2], 3)
    assert chosen[:2] == ("near", "other")
    assert len(chosen) == 3
    every = choose_exemplars(texts, vectors, np.eye(4, dtype=np.float32)[:2], 10)
    assert len(every) == 4
    assert max(len(text.encode()) for text in every) <= limits.EXEMPLAR_BYTES_MAX
