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
"""Names that many use, so that others find them: proposed before words of the examples' own."""
_USUAL_BONUS = 0.1
"""By so much nearer a word has to lie to be proposed instead."""
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
    words = common_words(examples)
    domains, why = given.domains, "named by you"
    if not domains:
        domains, why = await _domains(vectors, near, words, encoder)
    description = given.description or _description(words)
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
    if not words:
        return ("other",), "nothing in the examples names one"
    directions = await encoder.encode(words)
    centre = vectors.mean(axis=0)
    word = words[int((directions @ centre).argmax())]
    return (
        word,
    ), "the word in the examples that says most of them; name a better one with --domain"


def _description(words: Sequence[str]) -> str:
    return f"Questions about {', '.join(words[:_WORDS_NAMED])}." if words else "Other questions."
