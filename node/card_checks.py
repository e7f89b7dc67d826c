"""What is wrong with a card, and what to do about it, one check after another.

Knows cards, their bounds and the encoder; must not know files or who asked.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from coordinator.inspection import BORNE_OUT, agreement, texts_of
from coordinator.ports import Encoder
from coordinator.routing.score import THRESHOLD, card_score
from node.card_content import normal_domains, sealed_size
from node.state import Check
from protocols import limits
from protocols.errors import ProtocolError
from protocols.records import CapabilityCard, MeasuredScore, check_time, open_sealed

_DIGEST = re.compile(r"[0-9a-f]{64}")
_EXEMPLARS_WANTED = 4
_WINS_WANTED = 0.5


def check_sealed(sealed: bytes, now: float) -> Iterator[Check]:
    """Signature and time of a card that was published."""
    try:
        record = open_sealed(sealed)
        yield Check("signature", True, f"by {record.peer}")
        check_time(record, now)
        yield Check("expiry", True, f"lives for {record.expires_at - now:.0f} s more")
    except ProtocolError as error:
        fix = "ask its publisher to start the node again with the same version as yours"
        yield Check("signature and expiry", False, str(error), fix)


def check_words(card: CapabilityCard) -> Iterator[Check]:
    """What can be seen without an encoder."""
    size = sealed_size(card)
    yield Check(
        "size",
        size <= limits.RECORD_BYTES_MAX,
        f"{size:,} of {limits.RECORD_BYTES_MAX:,} bytes",
        "shorten description, exemplars or scores",
    )
    yield _domains(card)
    yield Check(
        "description",
        bool(card.description),
        card.description or "none",
        "say in a sentence what it is for: people and the planning model read it",
    )
    count = len(card.exemplars)
    yield Check(
        "exemplars",
        count >= _EXEMPLARS_WANTED,
        f"{count}, of at most {limits.EXEMPLARS_MAX}",
        f"give at least {_EXEMPLARS_WANTED}, in the style of real prompts",
    )
    yield _scores(card.scores)


async def check_prototypes(
    card: CapabilityCard, known: Sequence[CapabilityCard], encoder: Encoder
) -> list[Check]:
    """Whether its own texts bear the prototypes out, and whether it wins its own exemplars."""
    if not card.prototypes:
        fix = "give it examples and a domain: without prototypes nobody is routed to it"
        return [Check("prototypes", False, "none: it counts as a plain base", fix)]
    if card.encoder != encoder.digest:
        fix = "make the card anew with the encoder that your swarm uses"
        return [Check("prototypes", False, "of another encoder than the one here", fix)]
    texts = texts_of(card)
    vectors = await encoder.encode(texts) if texts else np.zeros((0, 0), dtype=np.float32)
    lowest = agreement(card, list(vectors))
    detail = (
        f"{len(card.prototypes)}; the one that its texts bear out least has cosine {lowest:.2f}"
    )
    fix = f"others take a card under {BORNE_OUT} for a lie: make it anew with `dslm card new`"
    own = vectors[: len(card.exemplars)]
    return [Check("prototypes", lowest >= BORNE_OUT, detail, fix), *_ranking(card, own, known)]


def _ranking(
    card: CapabilityCard, own: NDArray[np.float32], known: Sequence[CapabilityCard]
) -> Iterator[Check]:
    others = [
        one
        for one in known
        if one.specialist != card.specialist and one.prototypes and one.encoder == card.encoder
    ]
    if not len(own):
        return
    won, rivals = 0, dict[str, int]()
    for vector in own:
        mine = card_score(vector, card)
        best = max(others, key=lambda one: card_score(vector, one), default=None)
        if best is not None and card_score(vector, best) >= mine:
            rivals[best.specialist] = rivals.get(best.specialist, 0) + 1
        elif mine >= THRESHOLD:
            won += 1
    against = f"against {len({one.specialist for one in others})} other known specialists"
    detail = f"wins {won} of its {len(own)} own exemplars {against}"
    if not won:
        detail = f"never wins its own exemplars: {detail}"
    if rivals:
        detail += f"; most go to {max(rivals, key=lambda name: rivals[name])}"
    fix = "give exemplars that tell it from the others, or host it under their name as a replica"
    yield Check("ranking", won >= _WINS_WANTED * len(own), detail, fix)


def _domains(card: CapabilityCard) -> Check:
    named, normal = ", ".join(card.domains), normal_domains(card.domains)
    if not card.domains:
        return Check("domains", False, "none", "name at least one, such as science/physics")
    fix = f"write {', '.join(normal)}: others look it up by lower-case paths of up to four levels"
    return Check("domains", normal == card.domains, named, fix)


def _scores(scores: Sequence[MeasuredScore]) -> Check:
    if not scores:
        return Check("scores", True, "none measured")
    for one in scores:
        missing = [
            name
            for name, is_there in (
                ("probe", bool(one.probe)),
                ("metric", bool(one.metric)),
                ("digest (SHA-256 of the set, hex)", bool(_DIGEST.fullmatch(one.digest))),
                ("by", bool(one.by)),
            )
            if not is_there
        ]
        if missing:
            fix = "nobody can measure it again without: add it to [[scores]]"
            return Check("scores", False, f"{one.probe or '?'} lacks {', '.join(missing)}", fix)
    return Check("scores", True, f"{len(scores)}: {', '.join(one.probe for one in scores)}")
