"""The start-up check that the three import names are ours.

Knows installed distributions; must not import them.
"""

from collections.abc import Mapping, Sequence
from importlib import metadata

from protocols.errors import UserError

_DISTRIBUTION = "dslm"
_NAMES = ("node", "coordinator", "protocols")


def require_own_names(owners: Mapping[str, Sequence[str]] | None = None) -> None:
    """`UserError` if another distribution installed one of our import names.

    Such an environment may run half of each. `owners` maps import names to distributions; by
    default, those of this environment.
    """
    installed = metadata.packages_distributions() if owners is None else owners
    for name in _NAMES:
        others = sorted(set(installed.get(name, ())) - {_DISTRIBUTION})
        if others:
            raise UserError(
                f"the import name {name!r} belongs to {others[0]} too, which is installed beside "
                f"dslm. Give dslm an environment of its own, or run `pip uninstall {others[0]}`"
            )
