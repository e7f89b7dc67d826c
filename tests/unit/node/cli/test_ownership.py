"""The start-up check of our import names."""

import pytest

from node.cli.ownership import require_own_names
from protocols.errors import UserError


def test_this_environment_is_fine() -> None:
    require_own_names()


@pytest.mark.parametrize("name", ["node", "coordinator", "protocols"])
def test_another_owner_is_named(name: str) -> None:
    owners = {name: ["dslm", "intruder"], "numpy": ["numpy"]}
    with pytest.raises(UserError, match=f"'{name}'.*intruder.*pip uninstall intruder"):
        require_own_names(owners)


def test_a_name_listed_twice_for_us_is_ours() -> None:
    require_own_names({"node": ["dslm", "dslm"]})
