"""Cards: whatever somebody says of a specialist fits into a record, and is read as it was meant."""

import asyncio
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray

from coordinator.inspection import agreement, texts_of
from node.card_content import (
    card_of_file,
    fit_card,
    merged,
    normal_domains,
    sealed_size,
)
from node.card_file import CardFile, FilePrototypes, format_card_file, parse_card_file
from node.config import ModelConfig
from node.hosting.exemplars import clip_text
from protocols import limits
from protocols.domains import DEPTH_MAX, child_of, domain_prefixes
from protocols.records import (
    CapabilityCard,
    MeasuredScore,
    Prototype,
    open_sealed,
    seal,
)
from protocols.signing import Identity
from tests.effort import examples

ALICE = Identity(bytes(32))
characters = st.characters(exclude_categories=["Cs"])
text = st.text(characters, max_size=90)
names = st.text(characters, max_size=96)
scores = st.builds(
    MeasuredScore, names, names, st.floats(-1e6, 1e6), st.integers(1, 2**31), names, names
).map(lambda one: replace(one, digest=one.digest[:64]))
prototypes = st.builds(
    Prototype,
    st.binary(min_size=1, max_size=limits.PROTOTYPE_BYTES_MAX),
    st.floats(0, 1, exclude_min=True),
)


def tuples(of: st.SearchStrategy, most: int, least: int = 0) -> st.SearchStrategy:
    return st.lists(of, min_size=least, max_size=most).map(tuple)


files = st.builds(
    CardFile,
    description=st.text(characters, max_size=600),
    domains=tuples(names, limits.DOMAINS_MAX),
    languages=tuples(names, limits.LANGUAGES_MAX),
    modalities=tuples(names, limits.MODALITIES_MAX),
    licence=names,
    sources=tuples(text, 4),
    activated=st.none() | st.booleans(),
    exemplars=tuples(text.filter(bool), 20),
    scores=tuples(scores, limits.MEASURED_SCORES_MAX),
    encoded=st.none()
    | st.builds(
        FilePrototypes,
        names.filter(bool).map(lambda one: one[:64]),
        tuples(prototypes, limits.PROTOTYPES_MAX, 1),
    ),
)


class HashEncoder:
    """A direction for each text, near to nothing else."""

    digest = "e"

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [np.random.default_rng(abs(hash(text))).normal(size=384) for text in texts]
        found = np.stack(rows).astype(np.float32)
        unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit


def made_card(file: CardFile) -> CapabilityCard:
    return asyncio.run(card_of_file("owner/" + "n" * 90, file, HashEncoder()))


@settings(max_examples=examples(80), deadline=None)
@given(files)
def test_a_card_file_is_read_as_it_was_written(file: CardFile) -> None:
    assert parse_card_file(format_card_file(file).encode()) == file


@settings(max_examples=examples(80), deadline=None)
@given(files)
def test_every_card_fits_and_survives_the_seal(file: CardFile) -> None:
    said = merged(ModelConfig("x"), file)
    card, left_out = fit_card(made_card(said))
    assert bool(left_out) == (card != made_card(said))
    assert sealed_size(card) <= limits.RECORD_BYTES_MAX
    full = replace(
        card,
        peer=ALICE.peer_id,
        swarm="s" * 96,
        sequence=2**63 - 1,
        expires_at=1.9e9,
        model_digest="a" * 64,
        base_digest="b" * 64,
        adapter="c" * 64,
    )
    sealed = seal(full, ALICE)
    assert len(sealed) <= sealed_size(card) <= limits.RECORD_BYTES_MAX
    assert open_sealed(sealed) == full


@settings(max_examples=examples(80), deadline=None)
@given(files)
def test_what_is_left_on_a_card_still_bears_its_prototypes_out(file: CardFile) -> None:
    """Else receivers would take a card for a lie because it was too long."""
    card, _ = fit_card(made_card(merged(ModelConfig("x"), replace(file, encoded=None))))
    if card.prototypes and texts_of(card):
        vectors = asyncio.run(HashEncoder().encode(texts_of(card)))
        if len(card.prototypes) == len(set(texts_of(card))):  # a text for each, and no means
            assert agreement(card, list(vectors)) > 0.42


@settings(max_examples=examples(200), deadline=None)
@given(text, st.integers(0, 40))
def test_texts_are_cut_between_characters(text: str, most: int) -> None:
    cut = clip_text(text, most)
    assert len(cut.encode("utf-8")) <= most
    assert cut in text


@settings(max_examples=examples(200), deadline=None)
@given(st.text(st.sampled_from("ab/ A"), max_size=30))
def test_prefixes_lead_to_their_domain(domain: str) -> None:
    prefixes = domain_prefixes(domain)
    assert len(prefixes) <= DEPTH_MAX
    assert list(prefixes) == sorted(set(prefixes), key=len)
    above = ""
    for prefix in prefixes:
        assert child_of(above, domain) == prefix
        above = prefix
    assert child_of(above, domain) is None if above else True
    assert normal_domains([domain, domain]) == prefixes[-1:]
