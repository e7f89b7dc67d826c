"""A SentencePiece vocabulary of a GGUF file as a tokenizer: pieces and scores become merges.

Knows SentencePiece's BPE (arXiv 1808.06226) as llama.cpp reads it; must not know keys or files.
SentencePiece joins the two neighbours whose join has the best score, the leftmost first; a
byte-pair encoder whose merges are ranked by that score does the same.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, _UNUSED, BYTE = range(1, 7)
_SPACE = "\u2581"
_LENGTH_MAX = 1024
"""Characters of a piece, far more than any has: its parts are all looked up."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A vocabulary: text, score and type of each id. `has_prefix`: texts begin with a space."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    kinds: tuple[int, ...]
    has_prefix: bool

    def tokenizer(self) -> Tokenizer:
        """`ValueError` for a vocabulary that cannot spell every text."""
        vocabulary = {text: index for index, text in enumerate(self.texts)}
        if len(vocabulary) != len(self.texts):
            raise ValueError("lists a token twice")
        longest = max((len(text) for text in self.texts), default=0)
        if longest > _LENGTH_MAX:
            raise ValueError(f"has a token of {longest} characters")
        if any(math.isnan(score) for score in self.scores):
            raise ValueError("has a score that is no number")
        unknown = [self.texts[i] for i, kind in enumerate(self.kinds) if kind == UNKNOWN]
        spelled = sum(kind == BYTE for kind in self.kinds)
        if not unknown and spelled != 256:
            raise ValueError(f"has no token for the unknown and only {spelled} of 256 bytes")
        tokenizer = Tokenizer(
            models.BPE(
                vocabulary,
                list(self._merges()),
                unk_token=unknown[0] if unknown else None,
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        tokenizer.normalizer = self._normalizer()
        tokenizer.decoder = self._decoder()
        self._add_whole(tokenizer)
        return tokenizer

    def _merges(self) -> Iterator[tuple[str, str]]:
        """Best first. Of equal scores, as transformers ranks them: the longer left part first."""
        joinable = {
            text: (score, index)
            for index, (text, score, kind) in enumerate(
                zip(self.texts, self.scores, self.kinds, strict=True)
            )
            if kind in {NORMAL, USER_DEFINED}
        }
        found = [
            (joinable[text][0], len(left), len(right), left, right)
            for text in joinable
            for left, right in _splits(text, joinable)
        ]
        found.sort(key=lambda merge: merge[:3], reverse=True)
        return ((left, right) for *_, left, right in found)

    def _normalizer(self) -> normalizers.Normalizer:
        marked = normalizers.Replace(" ", _SPACE)
        if not self.has_prefix:
            return marked
        return normalizers.Sequence([normalizers.Prepend(_SPACE), marked])

    def _decoder(self) -> decoders.Decoder:
        steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        if self.has_prefix:
            steps.append(decoders.Strip(" ", 1, 0))
        return decoders.Sequence(steps)

    def _add_whole(self, tokenizer: Tokenizer) -> None:
        """Control tokens are matched in the text as it is, the model's own symbols in what it sees.

        The library would put the prefix before a symbol too, so with a prefix they stay as written.
        """
        control = [
            text for text, kind in zip(self.texts, self.kinds, strict=True) if kind == CONTROL
        ]
        defined = [
            text for text, kind in zip(self.texts, self.kinds, strict=True) if kind == USER_DEFINED
        ]
        tokenizer.add_special_tokens(
            [AddedToken(text, normalized=False, special=True) for text in control]
        )
        tokenizer.add_tokens(
            [AddedToken(text, normalized=not self.has_prefix, special=False) for text in defined]
        )


def _splits(text: str, joinable: Mapping[str, tuple[float, int]]) -> list[tuple[str, str]]:
    """All pairs of pieces that join to `text`, in the order of their ids."""
    pairs = [
        (text[:cut], text[cut:])
        for cut in range(1, len(text))
        if text[:cut] in joinable and text[cut:] in joinable
    ]
    return sorted(pairs, key=lambda pair: (joinable[pair[0]][1], joinable[pair[1]][1]))
