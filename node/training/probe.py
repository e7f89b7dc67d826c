"""Names for sets of examples: who measures on the same set can compare.

Knows examples and hashes; must not know scores.
"""

import hashlib
from collections.abc import Sequence

from node.training.examples import Example


def probe_digest(examples: Sequence[Example]) -> str:
    """SHA-256, hex, over all prompts and answers in order."""
    digest = hashlib.sha256()
    for example in examples:
        for text in (example.prompt, example.answer):
            data = text.encode()
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def prompt_hash(prompt: str) -> int:
    """64 bits that name a prompt without telling it."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
