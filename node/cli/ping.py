"""`dslm ping`: round trips to a peer.

Knows one line for each round trip; the node measures.
"""

from typing import Annotated

import typer

from node.cli.output import show, show_json
from node.cli.verb import Invocation, verb
from node.state import PingReport

EPILOG = """\b
Examples:
  dslm ping bob-3090     by name
  dslm ping 12D3KooWQ9   by peer id, or a start or end that is unique
  dslm ping -n 10 bob-3090
"""


@verb
def ping(
    invocation: Invocation,
    peer: Annotated[str, typer.Argument(help="Name, peer id, or its start or end.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How often.")] = 4,
) -> None:
    """Measure round trips to a peer."""
    client = invocation.client()
    report = client.post("/api/v1/ping", {"peer": peer, "count": count}, PingReport)
    if invocation.json:
        show_json(report)
        return
    show(f"{report.name or '-'} {report.peer} runs {report.software}")
    for sample in report.samples_ms:
        show(f"  {sample:.2f} ms")
    ordered = sorted(report.samples_ms)
    if ordered:
        median = ordered[len(ordered) // 2]
        show(f"least {ordered[0]:.2f}, median {median:.2f}, most {ordered[-1]:.2f} ms")
