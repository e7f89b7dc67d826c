"""Whether cards are near to what they say: their texts are encoded here, a few at a time.

Knows cards and the encoder port; must not know outcomes or how a card is asked. A card whose
prototypes its own texts do not bear out lies, or was made by mistake: it is trusted little.

Measured with MiniLM-L6-v2 (int8) on 88 cards of 8 to 150 prompts of 13 kinds (MMLU's subjects by
domain, GSM8K, MedQuAD, LegalBench, MBPP), exemplars as `node.hosting.exemplars` chooses them: the
prototype that lies farthest from every exemplar has a cosine of at least .49. With all prototypes
of another domain it is .26 at most, with half of them .38.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from coordinator.ports import Encoder
from coordinator.routing.score import prototype_vector
from protocols.errors import DslmError, Unsupported
from protocols.records import CapabilityCard

BORNE_OUT = 0.42
"""Cosine that every prototype must have with some text of its card."""
TRUST_IN_LIES = 0.25
VERDICTS_MAX = 16_384
_log = logging.getLogger(__name__)


async def _learn_nothing(_: Sequence[CapabilityCard]) -> None:
    """For who compares no descriptions."""


@dataclass(frozen=True, slots=True)
class InspectionSettings:
    """Times are in seconds."""

    encodings_per_second: float = 2.0
    idle_pause: float = 5.0
    """When all known cards have been looked at."""
    first_pause: float = 2.0
    """Other things matter more while a node starts."""


class Inspector:
    """`run` belongs into a task group of the caller. `cards` gives all that are known now.

    Cards are looked at in a random order, those first of which somebody asked `soon`; nothing is
    looked at twice, whoever publishes it.
    """

    def __init__(
        self,
        encoder: Encoder | None,
        cards: Callable[[], Sequence[CapabilityCard]],
        rng: Random,
        settings: InspectionSettings | None = None,
        learn: Callable[[Sequence[CapabilityCard]], Awaitable[None]] = _learn_nothing,
    ) -> None:
        """`learn` is given each card that was looked at: what it says is encoded for prompts."""
        self._encoder = encoder
        self._cards = cards
        self._rng = rng
        self._settings = settings or InspectionSettings()
        self._learn = learn
        self._verdicts: OrderedDict[bytes, float] = OrderedDict()
        self._seen: dict[tuple[str, str], tuple[int, bytes]] = {}
        """Which content a card had, by its sequence."""
        self._liars: set[tuple[str, str]] = set()
        """Cards that lied when they were last gone through."""
        self._soon: list[CapabilityCard] = []

    def agreement(self, card: CapabilityCard) -> float | None:
        """As the function `agreement`, if `card` has been looked at."""
        return self._verdicts.get(self._content(card))

    def is_lying(self, card: CapabilityCard) -> bool:
        """Whether `card` was looked at and its texts do not bear it out."""
        found = self.agreement(card)
        return found is not None and found < BORNE_OUT

    def honesty(self, card: CapabilityCard) -> float:
        """What to multiply the trust in `card` by; 1 as long as nothing is known.

        Asked for every card at every decision, so it looks closer at suspects only.
        """
        is_suspect = (card.specialist, card.peer) in self._liars
        return TRUST_IN_LIES if is_suspect and self.is_lying(card) else 1.0

    def soon(self, card: CapabilityCard) -> None:
        """Look at `card` before others: it is about to matter."""
        if len(self._soon) < 16 and self._is_due(card):
            self._soon.append(card)

    async def run(self) -> None:
        """For ever, never more than the settings' encodings a second."""
        await asyncio.sleep(self._settings.first_pause)
        while self._encoder is not None:
            card = self.next()
            if card is None:
                await asyncio.sleep(self._settings.idle_pause)
                continue
            try:
                await self.look_at(card, self._encoder)
            # Top of a task, and these are strangers' texts: one that a library chokes on must not
            # end the node. It is not looked at again.
            except Exception as error:  # noqa: BLE001
                _log.warning("cannot encode the card of %s: %s", card.specialist, error)
                if not isinstance(error, DslmError) or isinstance(error, Unsupported):
                    self._verdicts[self._content(card)] = -1.0
                await asyncio.sleep(self._settings.idle_pause)

    def next(self) -> CapabilityCard | None:
        """The card to look at now; None if all have been."""
        while self._soon:
            card = self._soon.pop(0)
            if self._is_due(card):
                return card
        cards = self._cards()
        present = {(card.specialist, card.peer) for card in cards}
        self._seen = {key: known for key, known in self._seen.items() if key in present}
        self._liars = {(card.specialist, card.peer) for card in cards if self.is_lying(card)}
        due = [card for card in cards if self._is_due(card)]
        return self._rng.choice(due) if due else None

    async def look_at(self, card: CapabilityCard, encoder: Encoder) -> None:
        """Encode the texts of `card` one at a time, so that nobody waits long, and judge it."""
        vectors = []
        for text in texts_of(card):
            vectors.append((await encoder.encode([text]))[0])
            await asyncio.sleep(1 / self._settings.encodings_per_second)
        self._verdicts[self._content(card)] = agreement(card, vectors)
        if self.is_lying(card):
            self._liars.add((card.specialist, card.peer))
        if len(self._verdicts) > VERDICTS_MAX:
            self._verdicts.popitem(last=False)
        if not self.is_lying(card):
            await self._learn([card])
            await asyncio.sleep(1 / self._settings.encodings_per_second)

    def _is_due(self, card: CapabilityCard) -> bool:
        encoder = self._encoder
        is_ours = encoder is not None and card.encoder == encoder.digest and card.prototypes
        return bool(is_ours) and self.agreement(card) is None

    def _content(self, card: CapabilityCard) -> bytes:
        """A digest of what the verdict depends on, worked out once for each announcement."""
        known = self._seen.get((card.specialist, card.peer))
        if known is not None and known[0] == card.sequence:
            return known[1]
        digest = hashlib.sha256(card.encoder.encode())
        for prototype in card.prototypes:
            digest.update(hashlib.sha256(prototype.vector).digest())
        for text in texts_of(card):
            digest.update(hashlib.sha256(text.encode("utf-8", "replace")).digest())
        self._seen[card.specialist, card.peer] = (card.sequence, digest.digest())
        return digest.digest()


def texts_of(card: CapabilityCard) -> tuple[str, ...]:
    """What should lie near to the prototypes: exemplars, and the description, which has part."""
    return (*card.exemplars, *([card.description] if card.description else []))


def agreement(card: CapabilityCard, vectors: Sequence[NDArray[np.float32]]) -> float:
    """How near the texts with these unit `vectors` [dimensions] come to the worst prototype.

    -1 if there are no texts: then nothing bears the prototypes out. Prototypes of another number
    of dimensions do not count anywhere, so they do not count here.
    """
    if not vectors:
        return -1.0
    texts = np.stack(vectors)
    prototypes = [prototype_vector(one) for one in card.prototypes]
    best = [
        float((texts @ prototype).max())
        for prototype in prototypes
        if prototype.size == texts.shape[1]
    ]
    return min(best, default=1.0)
