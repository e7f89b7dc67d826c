"""What does it cost to be served by a peer, and what does batching bring?

Method: two real daemons on loopback; one hosts SmolLM2-135M-Instruct in fp32, the other hosts
nothing. The same greedy prompt is answered through the host's own API ("local") and through the
other node's ("remote"), in turn; tokens a second are counted from the first piece of text to the
last, medians are compared. Then 1 and 16 clients at a time ask the node that hosts nothing for
answers of different prompts; all tokens over the whole time, prefill and queueing included.

Run: `.venv/bin/python benchmarks/serve.py [--quick]`.
"""

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from node.cli.answering import ChatMessage, ChatRequest, ask_streaming, ask_whole
from node.cli.client import Client
from node.cli.trial_swarm import TrialNode, TrialSwarm, address_of
from node.config import environment
from node.config_reader import Overrides, load_process_config
from report import Row, print_report

CLIENTS = 16
TOKENS = 96
ANSWER_SECONDS = 600.0
PROMPT = "Tell me, step by step and at length, how bread is made."
SUBJECTS = (
    "bread", "glass", "paper", "steel", "cheese", "soap", "ink", "rope",
    "beer", "tea", "sugar", "bricks", "candles", "leather", "honey", "salt",
)  # fmt: skip


def request(prompt: str, tokens: int) -> ChatRequest:
    """A greedy request for `tokens` tokens."""
    return ChatRequest(
        model="smollm2",
        messages=[ChatMessage("user", prompt)],
        max_tokens=tokens,
        temperature=0.0,
    )


def tokens_per_second(node: TrialNode) -> float:
    """Of one streamed answer, as its reader sees it."""
    arrivals: list[float] = []
    ask_streaming(node.client, request(PROMPT, TOKENS), lambda _: arrivals.append(time.monotonic()))
    return (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])


def total_tokens_per_second(node: TrialNode, clients: int) -> float:
    """Of `clients` answers at a time."""

    def one(subject: str) -> int:
        answer = ask_whole(patient, request(f"How is {subject} made?", TOKENS))
        return answer.usage.completion_tokens if answer.usage else 0

    patient = Client(node.client.url, timeout=ANSWER_SECONDS)
    started = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        total = sum(pool.map(one, SUBJECTS[:clients]))
    return total / (time.monotonic() - started)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    rounds = 2 if parser.parse_args().quick else 5
    models = load_process_config(Overrides()).config.paths.models
    with TrialSwarm(models, environment()) as swarm:
        asker = swarm.start("asker", "none")
        swarm.wait_ready([asker], 60)
        host = swarm.start("host", "smollm2", [address_of(asker)])
        swarm.wait_ready([host], 60)
        swarm.wait_met(asker, 1, 60)
        for node in (host, asker):
            tokens_per_second(node)
        pairs = [(tokens_per_second(host), tokens_per_second(asker)) for _ in range(rounds)]
        batches = [
            (total_tokens_per_second(asker, 1), total_tokens_per_second(asker, CLIENTS))
            for _ in range(max(1, rounds // 2))
        ]
    local, remote = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(two / one for one, two in pairs)
    single, many = (statistics.median(column) for column in zip(*batches, strict=True))
    gain = statistics.median(two / one for one, two in batches)
    rows = [
        Row("one stream, local", local, "tokens/s"),
        Row(
            "one stream, remote", remote, "tokens/s", "local", ratio, "at least 0.9x", ratio >= 0.9
        ),
        Row("one client, remote", single, "tokens/s"),
        Row(
            f"{CLIENTS} clients, remote, in all",
            many,
            "tokens/s",
            "one client",
            gain,
            "at least 3x",
            gain >= 3,
        ),
    ]
    return print_report("serve", rows)


if __name__ == "__main__":
    sys.exit(main())
