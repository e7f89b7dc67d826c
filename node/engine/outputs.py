"""What is added to a step's outputs after the scheduler has made them.

Knows outputs, request ids and positions; needs no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from node.engine.base import Generated, StepOutput, TokenLikelihood


def with_likelihoods(
    outputs: Sequence[StepOutput], found: Mapping[tuple[str, int], TokenLikelihood]
) -> list[StepOutput]:
    """`outputs` with what was `found` for a request's id and a position of its answer."""
    if not found:
        return list(outputs)
    return [
        replace(output, likelihood=found.get((output.request_id, output.position)))
        if isinstance(output, Generated)
        else output
        for output in outputs
    ]
