"""Three real daemons: what a peer that hosts nothing gets is what transformers says, id for id."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from node.cli.client import Client
from node.cli.trial_swarm import TrialNode, TrialSwarm, address_of
from node.config import environment
from node.state import SpecialistsState

pytestmark = pytest.mark.integration

TOKENS = 40
GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2_greedy.json"
PROMPTS = (
    "Why is the sky blue?",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Übersetze ins Englische: „Der Fluß ist tief — und kalt.“ 🌊",
)
Reference = Callable[[str], tuple[int, ...]]


class Ours(msgspec.Struct):
    token_ids: tuple[int, ...]
    specialist: str


class Message(msgspec.Struct):
    content: str


class Choice(msgspec.Struct):
    message: Message
    finish_reason: str


class Completion(msgspec.Struct):
    choices: list[Choice]
    dslm: Ours


@pytest.fixture(scope="module")
def asker(smollm2_path: Path, models_dir: Path) -> Iterator[TrialNode]:
    """The one of three nodes that hosts nothing, when it has found the other two."""
    assert smollm2_path.exists()
    with TrialSwarm(models_dir, environment(), precision="fp32") as swarm:
        asker = swarm.start("asker", "none")
        swarm.wait_ready([asker], 90)
        hosts = [swarm.start(name, "smollm2", [address_of(asker)]) for name in ("one", "two")]
        swarm.wait_ready(hosts, 120)
        swarm.wait_met(asker, len(hosts), 60)
        yield asker


@pytest.fixture(scope="module")
def reference(smollm2_path: Path) -> Reference:
    """Greedy ids of `transformers` in fp32 for a user's message, without the final control id."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": smollm2_path.name}
    tokenizer = AutoTokenizer.from_pretrained(smollm2_path.parent, **where)
    model: Any = AutoModelForCausalLM.from_pretrained(
        smollm2_path.parent, dtype=torch.float32, **where
    )

    def generate(prompt: str) -> tuple[int, ...]:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        output = model.generate(ids, do_sample=False, max_new_tokens=TOKENS)
        answer = output[0, ids.shape[1] :].tolist()
        return tuple(answer[:-1] if answer[-1] == tokenizer.eos_token_id else answer)

    return generate


def ask(node: TrialNode, prompt: str) -> Completion:
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "dslm": {"return_token_ids": True},
    }
    return Client(node.client.url, 300).post("/v1/chat/completions", body, Completion)


def check_all(asker: TrialNode, reference: Reference, prompts: Sequence[str]) -> None:
    """Ask all prompts four at a time, so that they share batches, and compare each."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda prompt: ask(asker, prompt), prompts))
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.dslm.token_ids == reference(prompt), prompt


def test_three_prompts_get_the_reference_answer(asker: TrialNode) -> None:
    recorded = {one["prompt"]: tuple(one["ids"]) for one in json.loads(GOLDEN.read_text())}
    check_all(asker, recorded.__getitem__, PROMPTS)


@pytest.mark.slow
def test_what_was_recorded_is_what_transformers_says(reference: Reference) -> None:
    """`tests/golden/smollm2_greedy.json` saves the default tests half a minute of loading."""
    for one in json.loads(GOLDEN.read_text()):
        assert tuple(one["ids"]) == reference(one["prompt"])


def test_the_asker_hosts_nothing_and_two_peers_host_the_model(asker: TrialNode) -> None:
    models = asker.client.get("/api/v1/models", SpecialistsState).models
    assert [(model.id, len(model.peers), model.is_local) for model in models] == [
        ("smollm2", 2, False)
    ]


@pytest.mark.slow
def test_twenty_prompts_of_four_domains_get_the_reference_answer(
    asker: TrialNode, reference: Reference, data_folder: Path
) -> None:
    check_all(asker, reference, twenty_prompts(data_folder))


def twenty_prompts(folder: Path) -> list[str]:
    """Five prompts each of four public sets."""
    prompts = []
    for name in ("gsm8k", "medquad", "legalbench", "mbpp"):
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = (json.loads(line) for line in lines)
            tests = [row["q"] for row in rows if row["split"] == "test" and len(row["q"]) < 1_500]
        prompts += tests[:5]
    return prompts
