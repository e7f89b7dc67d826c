"""Domains as paths, such as `science/physics`, and the prefixes under which they are indexed.

Knows how a domain is spelled; must not know which domains there are.
"""

DEPTH_MAX = 4
"""Levels of a domain that are indexed; what lies deeper is found under the fourth."""


def domain_path(domain: str) -> tuple[str, ...]:
    """The levels of `domain`, at most `DEPTH_MAX`: lower case, without blanks and empty levels."""
    levels = (" ".join(level.split()).lower() for level in domain.split("/"))
    return tuple(level for level in levels if level)[:DEPTH_MAX]


def domain_prefixes(domain: str) -> tuple[str, ...]:
    """`domain` and all that it is part of, the widest first: `science`, `science/physics`."""
    path = domain_path(domain)
    return tuple("/".join(path[: depth + 1]) for depth in range(len(path)))


def child_of(prefix: str, domain: str) -> str | None:
    """The prefix of `domain` one level below `prefix` (`""`: the first level); None if none is."""
    depth = len(prefix.split("/")) if prefix else 0
    prefixes = domain_prefixes(domain)
    if len(prefixes) <= depth or (prefix and prefixes[depth - 1] != prefix):
        return None
    return prefixes[depth]
