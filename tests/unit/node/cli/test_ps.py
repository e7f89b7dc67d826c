"""What `dslm ps` says that each model takes."""

from node.cli.ps import sizes
from node.state import HostedState


def hosted(name: str, size: int, copy: str = "", own: int = 0) -> HostedState:
    return HostedState(name, "d", "int4", 64, 1, size, (), 0, 0, 1, copy=copy, own=own)


def test_a_base_counts_once_with_the_first_that_has_it() -> None:
    found = sizes(
        [
            hosted("law", 105, "a", own=5),
            hosted("base", 100, "a"),
            hosted("other", 70, "b"),
            hosted("medicine", 107, "a", own=7),
            hosted("of an older node", 50),
            hosted("of an older node too", 60),
        ]
    )
    assert list(found) == [105, 0, 70, 7, 50, 60]
