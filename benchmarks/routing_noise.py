"""The same prompt said otherwise: typos, case, wrappers, and paraphrases by rule.

Knows text only; must not know routing. All random choices come from a seed and the text.
"""

import random
import re
from collections.abc import Callable, Mapping

_WRAPPERS = (
    "Hello! Could you please help me with the following? {} Thank you very much in advance.",
    "Please answer this question as well as you can.\n\n{}\n\nThanks!",
    "I have been wondering about this for a while: {} What do you think?",
    "Question: {}\nAnswer:",
)
_OPENINGS: Mapping[str, str] = {
    r"^which of the following": "which one of these",
    r"^what is the": "can you tell me the",
    r"^what are the": "can you tell me the",
    r"^what is": "can you explain what is",
    r"^how many": "what number of",
    r"^how do(?:es)?": "in what way do",
    r"^why": "for what reason",
    r"^find": "work out",
    r"^calculate": "compute",
}
_SYNONYMS: Mapping[str, str] = {
    "which of the following": "which one of these", "most likely": "probably",
    "according to": "as stated by", "because": "since", "however": "but", "following": "next",
    "usually": "normally", "example": "instance", "describe": "explain", "large": "big",
    "begin": "start", "show": "demonstrate", "needs": "requires", "uses": "makes use of",
    "called": "named", "true": "correct", "false": "wrong", "correct": "right", "about": "around",
    "people": "persons", "often": "frequently", "must": "has to", "buy": "purchase",
}  # fmt: skip
_TYPO_SHARE = 0.04
"""Of the letters."""


def typos(text: str, rng: random.Random) -> str:
    """One letter in 25 is dropped, doubled, or swapped with the next."""
    letters = list(text)
    at = 0
    while at < len(letters) - 1:
        if letters[at].isalpha() and rng.random() < _TYPO_SHARE:
            match rng.randrange(3):
                case 0:
                    del letters[at]
                case 1:
                    letters.insert(at, letters[at])
                    at += 1
                case _:
                    letters[at], letters[at + 1] = letters[at + 1], letters[at]
                    at += 1
        at += 1
    return "".join(letters)


def paraphrase(text: str, _: random.Random) -> str:
    """Another opening, and other words where a synonym is known."""
    for pattern, words in _OPENINGS.items():
        changed = re.sub(pattern, words, text, count=1, flags=re.IGNORECASE)
        if changed != text:
            text = changed
            break
    for word, other in _SYNONYMS.items():
        text = re.sub(rf"\b{word}\b", other, text, flags=re.IGNORECASE)
    return text


def wrapped(text: str, rng: random.Random) -> str:
    """Politeness around it."""
    return rng.choice(_WRAPPERS).format(text)


def lower(text: str, _: random.Random) -> str:
    """All in small letters, without the last mark."""
    return text.lower().rstrip("?.! ")


def upper(text: str, _: random.Random) -> str:
    """All in capitals."""
    return text.upper()


KINDS: Mapping[str, Callable[[str, random.Random], str]] = {
    "paraphrase": paraphrase, "typos": typos, "lower case": lower, "upper case": upper,
    "wrapper": wrapped,
}  # fmt: skip
