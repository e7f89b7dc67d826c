"""How much of the engine each client has had, so that the next turn goes to who had least.

Knows clients by name and tokens; must not know requests. These are the virtual token counters of
"Fairness in Serving Large Language Models" (arXiv 2401.00588, section 4).
"""

from collections import Counter

_REMEMBERED = 1024


class Shares:
    """Tokens computed for each client.

    A client that comes (back) starts at the least of those inside, or where it left if that is
    more: having been away earns nothing, and leaving forgives nothing.
    """

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._inside: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Shares inside={len(self._inside)} remembered={len(self._served)}>"

    def enter(self, client: str) -> None:
        """One more request of `client`."""
        if client not in self._inside:
            self._served[client] = max(self._served.get(client, 0), self._floor())
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

    def served(self, client: str) -> int:
        """The counter of a client inside; only its order among the others means anything."""
        return self._served[client]

    def _floor(self) -> int:
        return min((self._served[client] for client in self._inside), default=0)

    def _forget(self) -> None:
        """Drop what can no longer matter: counters of the absent that coming back would lift."""
        floor = self._floor() if len(self._served) <= _REMEMBERED else max(self._served.values())
        kept = {c: n for c, n in self._served.items() if c in self._inside or n > floor}
        self._served = kept if self._inside else {}
