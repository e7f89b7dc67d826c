"""New values of an arm take the place of all its old ones, and of nobody else's."""

import json
from pathlib import Path

import numpy as np

from specialists_items import load, merge, save


def test_values_of_an_arm_are_replaced(tmp_path: Path) -> None:
    items, new = tmp_path / "items.npz", tmp_path / "new.npz"
    one, two = np.ones(2, np.float32), np.full(2, 2, np.float32)
    kept = ("base/math/test/nats", "tokens/math/test", "math2/math/test/nats", "choices/base/math")
    gone = ("math/math/test/nats", "math-3/math/test/nats", "math/law/test/nats")
    save(items, dict.fromkeys((*kept, *gone, "choices/math/math"), one))
    told = np.array(json.dumps({"how": "mean of 2"}))
    names = ("math/math/test/nats", "math-1/math/test/nats", "choices/math/math")
    save(new, {**dict.fromkeys(names, two), "made/math": told})
    assert merge(items, [new]).keys() == {"math"}
    found = load(items)
    assert found.keys() == {*kept, *names}
    assert all(found[name][0] == (2 if name in names else 1) for name in found)
