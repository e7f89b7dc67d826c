"""Every adapter that comes with dslm loads, is small, and helps on its subject."""

import tomllib
from pathlib import Path

import pytest
import torch

import node
from node.hosting.adapters import read_adapter
from node.hosting.weights import ModelWeights
from node.training.base import FrozenBase, load_base
from node.training.examples import ChatFormat, Example
from node.training.export import load_adapter
from node.training.score import score

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
]

SHIPPED = Path(node.__file__).parent / "specialists"
BYTES_MAX = 5_400_000
NAMES = sorted(path.parent.name for path in SHIPPED.glob("*/dslm_adapter.json"))
SAID = {
    "math": (
        "Mia picks 12 pears a day for 5 days and eats 8 of them. How many pears are left?",
        "She picks 12*5=<<12*5=60>>60 pears.\n60-8=<<60-8=52>>52 pears are left.\n#### 52",
    ),
    "medicine": (
        "What are the symptoms of Tennis Elbow ?",
        "The most common symptoms are pain and tenderness on the outside of the elbow. "
        "The pain may get worse when you grip or lift something.",
    ),
    "law": (
        "Task: CUAD governing law. Answer Yes or No.\n\nThis Agreement shall be governed by and "
        "construed in accordance with the laws of the State of Oregon.",
        "Yes",
    ),
    "computing": (
        "Write a function to find the smaller of two numbers.\nassert smaller(3, 5) == 3",
        "def smaller(a, b):\n  if a < b:\n    return a\n  return b",
    ),
    "science": ("What is the unit of electric resistance?", "ohm"),
    "economics": ("A rise in the price of bread lowers the quantity", "demanded"),
    "history": ("Who led the Soviet Union during the Second World War?", "Joseph Stalin"),
    "psychology": ("Learning by watching what others do is called", "observational learning"),
    "planner": (
        "Specialists:\nmath: Arithmetic.\nlaw: Contracts.\nPrompt:\nWhat is 3 times 8? "
        "Then, tell me what a lease is.",
        "math: What is 3 times 8?\nlaw: tell me what a lease is.",
    ),
}


@pytest.fixture(scope="module")
def base(weights: ModelWeights) -> FrozenBase:
    return load_base(weights.config, weights.tensors, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_whole_small_and_better_than_the_base(
    weights: ModelWeights, base: FrozenBase, name: str
) -> None:
    folder = SHIPPED / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= BYTES_MAX
    adapter = read_adapter(folder, weights.config)
    is_activated = name.endswith("-activated")
    form = ChatFormat(weights.tokenizer)
    assert adapter.invocation == (form.header if is_activated else ())
    prompt, answer = SAID[name.removesuffix("-activated")]
    rows = form.rows([Example(prompt, answer)], 512)
    plain = score(base, None, rows).per_token
    own = score(base, load_adapter(folder, base), rows, activated=is_activated).per_token
    assert own < plain


def test_all_share_one_frozen_a_and_name_their_base(weights: ModelWeights) -> None:
    shapes = set()
    for name in NAMES:
        settings = tomllib.loads((SHIPPED / name / "card.toml").read_text())
        assert settings["description"]
        assert settings["sources"]
        text = (SHIPPED / name / "dslm_adapter.json").read_text()
        assert weights.digest in text
        adapter = read_adapter(SHIPPED / name, weights.config)
        shapes.add(float(adapter.parts[3, "gate"].a.double().sum()))
    assert len(shapes) == 1
    assert {"math", "medicine", "law", "computing"} <= set(NAMES)
