"""How much of the engine each client has had, so that the next turn goes to who had least.

Knows clients by name and tokens; must not know requests. These are the virtual token counters of
"Fairness in Serving Large Language Models" (arXiv 2401.00588, section 4), but newcomers start at
the virtual time of fair queueing (Parekh and Gallager 1993), not at the least counter: else ever
new names at the least would keep everybody above it waiting.
"""

from collections import Counter

_REMEMBERED = 1024


class Shares:
    """Tokens computed for each client.

    A client that comes (back) starts at what an even share would have brought by now, or where it
    left if that is more: having been away earns nothing, and leaving forgives nothing.
    """

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._inside: Counter[str] = Counter()
        self._even = 0.0

    def __repr__(self) -> str:
        return f"<Shares inside={len(self._inside)} remembered={len(self._served)}>"

    def enter(self, client: str) -> None:
        """One more request of `client`."""
        if client not in self._inside:
            self._served[client] = max(self._served.get(client, 0.0), self._even)
        self._inside[client] += 1

    def leave(self, client: str) -> None:
        """One request of `client` less."""
        self._inside[client] -= 1
        if not self._inside[client]:
            del self._inside[client]
            self._forget()

    def charge(self, client: str, tokens: int) -> None:
        """`tokens` were computed for `client`, which is inside."""
        self._served[client] += tokens
        self._even += tokens / len(self._inside)

    def served(self, client: str) -> float:
        """The counter of a client inside; only its order among the others means anything."""
        return self._served[client]

    def _forget(self) -> None:
        """Drop what can no longer matter, and all who left when they get too many."""
        if not self._inside:
            self._served, self._even = {}, 0.0
        elif len(self._served) > len(self._inside):
            limit = self._even if len(self._served) <= _REMEMBERED else float("inf")
            kept = {c: n for c, n in self._served.items() if c in self._inside or n > limit}
            self._served = kept
