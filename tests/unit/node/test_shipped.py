"""Specialists that ship: found by their files, shared out evenly, written as settings."""

import tomllib
from pathlib import Path

import pytest

from node.shipped import Specialist, models_toml, share_out, shipped_specialists
from protocols.errors import ModelFileError


def put(folder: Path, name: str, card: str | None = 'domains = ["law"]\nlicence = "x"') -> None:
    place = folder / name
    place.mkdir()
    (place / "dslm_adapter.json").write_text("{}")
    if card is not None:
        (place / "card.toml").write_text(card)


def test_those_with_an_adapter_are_found_by_name(tmp_path: Path) -> None:
    put(tmp_path, "tax", 'domains = ["tax"]')
    put(tmp_path, "law", 'domains = ["law"]\nactivated = false')
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "empty").mkdir()
    found = shipped_specialists(tmp_path)
    assert [(one.name, one.domains) for one in found] == [("law", ("law",)), ("tax", ("tax",))]
    assert shipped_specialists(tmp_path / "nowhere") == ()


def test_helpers_and_second_ones_for_a_field_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "planner", "domains = []")
    put(tmp_path, "art-activated", 'domains = ["art"]\nactivated = true')
    put(tmp_path, "dance", 'domains = ["dance"]\nactivated = true')
    put(tmp_path, "zart", 'domains = ["art"]')
    assert [one.name for one in shipped_specialists(tmp_path)] == ["dance", "zart"]
    activated = shipped_specialists(tmp_path, activated=True)
    assert [one.name for one in activated] == ["art-activated", "dance"]


def test_what_this_installation_ships_is_there_and_small() -> None:
    found = {one.name: one for one in shipped_specialists()}
    assert {"math", "medicine", "law", "computing", "science"} <= found.keys()
    for one in found.values():
        files = [part for part in one.adapter.iterdir() if part.is_file()]
        assert sum(part.stat().st_size for part in files) < 5_500_000
        assert one.domains


@pytest.mark.parametrize("card", [None, "domains = [", "domains = 3"])
def test_a_card_that_cannot_be_read_is_said(tmp_path: Path, card: str | None) -> None:
    put(tmp_path, "law", card)
    with pytest.raises(ModelFileError, match=r"law/card\.toml"):
        shipped_specialists(tmp_path)


def some(count: int) -> list[Specialist]:
    return [Specialist(f"s{at}", Path(f"/a/s{at}"), ("d",)) for at in range(count)]


@pytest.mark.parametrize(("count", "hosts", "copies"), [(7, 2, 1), (7, 3, 2), (1, 3, 2), (4, 1, 2)])
def test_they_are_shared_out_evenly(count: int, hosts: int, copies: int) -> None:
    names = [f"h{at}" for at in range(hosts)]
    shares = share_out(some(count), names, copies)
    assert list(shares) == names
    places = [one.name for share in shares.values() for one in share]
    assert all(places.count(one.name) == min(copies, hosts) for one in some(count))
    assert all(len(set(share)) == len(share) for share in shares.values())
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= copies


def test_settings_name_the_base_and_each_adapter_on_it() -> None:
    odd = Specialist("odd", Path('/a/"b'), ("x", "y"), 'says "a\\b" é', ("one?", "two"))
    models = tomllib.loads(models_toml([*some(1), odd]))["models"]
    assert [model["id"] for model in models] == ["smollm2", "s0", "odd"]
    assert {(model["path"], model["context"], model["slots"]) for model in models} == {
        ("smollm2", 2_048, 4)
    }
    assert "adapter" not in models[0]
    assert models[1] == models[0] | {"id": "s0", "adapter": "/a/s0", "domains": ["d"]}
    assert models[2]["adapter"] == '/a/"b'
    assert models[2]["description"] == 'says "a\\b" é'
    assert models[2]["examples"] == ["one?", "two"]
