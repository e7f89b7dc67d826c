"""A first card for a folder of examples: prototypes, exemplars, and domains that it may belong to.

Knows texts, known cards and the encoder; must not know files or who asked. Proposals are for people
to look over.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from coordinator.ports import Encoder
from coordinator.routing.score import card_score, prototype_vector
from node.card_content import normal_domains, prototypes_wanted
from node.card_file import CardFile, FilePrototypes
from node.hosting.exemplars import choose_exemplars, clip_text
from node.hosting.prototypes import make_prototypes
from protocols import limits
from protocols.records import CapabilityCard

SAME_DOMAIN = 0.45
"""Mean cosine of the examples with a known card from which on they are of its domain."""
USUAL_DOMAINS = (
    *("law", "law/tax", "medicine", "medicine/nutrition", "math", "computing", "science/physics"),
    *("science/chemistry", "science/biology", "science/astronomy", "economics", "finance"),
    *("history", "politics", "geography", "psychology", "philosophy", "religion", "sociology"),
    *("education", "engineering", "cooking", "gardening", "travel", "sports", "music", "art"),
    *("film", "literature", "language", "cars", "games", "pets", "weather", "insurance"),
)
"""Names that many use, so that others find them: proposed before words of the examples' own. With
30 examples of each of 12 kinds (MMLU's subjects by domain, MedQuAD, GSM8K, LegalBench, MBPP) the
nearest was right for 11; MMLU's medicine was taken for biology."""
USUAL_FROM = 0.12
"""Mean cosine of the examples with such a name; below, a word of their own names them."""
EXEMPLARS_KEPT = 24
"""Written into the file, so that there is something to choose from."""
_WORDS_LOOKED_AT = 24
_WORDS_NAMED = 5
_WORD = re.compile(r"[^\W\d_]{4,}")
_COMMON = """
about above after again against also another answer because been before being below between
both called cannot could describe does doing down during each every example examples explain false
find following form from further give given gives have having here into itself just know like list
made make many might more most much must need often only other over please question same shall
should show since some statement such take tell than that their them then there these they this
those through today true under until used using very want were what when where which while will
with within without would write your yours
"""
"""Words that tell nothing, with blanks between."""


@dataclass(frozen=True, slots=True)
class Near:
    """A known card and how near the examples lie to it: their mean cosine."""

    specialist: str
    domains: tuple[str, ...]
    cosine: float


@dataclass(frozen=True, slots=True)
class Draft:
    """`file` is ready to be written; `why` says in a sentence where its domains come from."""

    file: CardFile
    why: str
    near: tuple[Near, ...]


async def draft(
    examples: Sequence[str], given: CardFile, known: Sequence[CapabilityCard], encoder: Encoder
) -> Draft:
    """A card file for `examples`. What `given` says stands; the rest is proposed."""
    vectors = await encoder.encode(examples)
    near = nearest_cards(vectors, known, encoder.digest)
    words = await telling_words(examples, vectors, encoder)
    domains, why = given.domains, "named by you"
    if not domains:
        domains, why = await _domains(vectors, near, words, encoder)
    description = given.description or _description(domains, words)
    texts = (*examples, description)
    every = np.concatenate([vectors, await encoder.encode([description])])
    prototypes = make_prototypes(every, prototypes_wanted(len(texts)))
    directions = np.stack([prototype_vector(one) for one in prototypes])
    file = replace(
        given,
        domains=normal_domains(domains),
        description=clip_text(description, limits.DESCRIPTION_BYTES_MAX),
        exemplars=choose_exemplars(examples, vectors, directions, EXEMPLARS_KEPT),
        encoded=FilePrototypes(encoder.digest, prototypes),
    )
    return Draft(file, why, near)


def nearest_cards(
    vectors: NDArray[np.float32], known: Sequence[CapabilityCard], encoder: str, count: int = 3
) -> tuple[Near, ...]:
    """The known specialists that the examples lie nearest to."""
    found: dict[str, Near] = {}
    for card in known:
        if card.encoder != encoder or not card.prototypes:
            continue
        cosine = float(np.mean([card_score(vector, card) for vector in vectors]))
        before = found.get(card.specialist)
        if before is None or before.cosine < cosine:
            found[card.specialist] = Near(card.specialist, card.domains, cosine)
    return tuple(sorted(found.values(), key=lambda one: (-one.cosine, one.specialist))[:count])


async def telling_words(
    examples: Sequence[str], vectors: NDArray[np.float32], encoder: Encoder
) -> tuple[str, ...]:
    """Words that many examples share, those first that lie nearest to all of them."""
    words = common_words(examples)
    if not words:
        return ()
    nearness = await encoder.encode(words) @ vectors.mean(axis=0)
    return tuple(words[index] for index in np.argsort(-nearness, kind="stable"))


def common_words(examples: Sequence[str]) -> tuple[str, ...]:
    """Words that most examples share, but for those that every text has."""
    common = set(_COMMON.split())
    counts: Counter[str] = Counter()
    for text in examples:
        words = {word.lower() for word in _WORD.findall(text)}
        counts.update(words - common)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return tuple(ordered[:_WORDS_LOOKED_AT])


async def _domains(
    vectors: NDArray[np.float32],
    near: Sequence[Near],
    words: Sequence[str],
    encoder: Encoder,
) -> tuple[tuple[str, ...], str]:
    if near and near[0].cosine >= SAME_DOMAIN and near[0].domains:
        best = near[0]
        return best.domains, f"those of {best.specialist}, to which the examples lie nearest"
    names = [name.replace("/", " ") for name in USUAL_DOMAINS]
    nearness = await encoder.encode(names) @ vectors.mean(axis=0)
    if nearness.max() >= USUAL_FROM or not words:
        name = USUAL_DOMAINS[int(nearness.argmax())]
        return (name,), "the usual name nearest to the examples; give a better one with --domain"
    return tuple(words[:1]), "a word of the examples; give a better one with --domain"


def _description(domains: Sequence[str], words: Sequence[str]) -> str:
    subject = domains[0].rpartition("/")[2]
    named = ", ".join(word for word in words[:_WORDS_NAMED] if word != subject)
    return f"Questions about {subject}: {named}." if named else f"Questions about {subject}."
