"""What each step of a plan may use: its share of the tokens and of the time that are left.

Knows numbers and the order of steps; must not know what the steps are about. Pure. What a step
leaves over is there when the next one's share is taken, so it passes on by itself.
"""

from collections.abc import Collection, Sequence

from coordinator.routing.plan import Step

RESERVE_TOKENS = 16
"""The least that a later step is left for its answer."""


def seconds_for(steps: Sequence[Step], index: int, ended: Collection[int], left: float) -> float:
    """Of the `left` seconds, those for step `index`, which begins now.

    The time is shared with the longest row of steps that cannot begin before this one has ended;
    what runs side by side uses the same time.
    """
    return max(0.0, left) / _row(steps, index, ended)


def tokens_for(waiting: int, left: int) -> int:
    """Of the `left` tokens, those for one of `waiting` steps that have not begun; rounded up."""
    return -(-max(0, left) // max(1, waiting))


def answer_limit(context: int, steps: int) -> int:
    """The most tokens of one answer where the client set no limit: room for the others' as well."""
    return max(RESERVE_TOKENS, context // (steps + 1))


def memory_tokens(context: int, used: int, later: Sequence[int]) -> int:
    """How many tokens of an answer the next step has room for.

    `used` tokens stand before the answer; `later` has, for each step that will read it, the tokens
    of its own prompt and answer.
    """
    return max(0, context - used - sum(later))


def _row(steps: Sequence[Step], index: int, ended: Collection[int]) -> int:
    after = (other for other, step in enumerate(steps) if index in step.after)
    rows = [_row(steps, other, ended) for other in after if other not in ended]
    return 1 + max(rows, default=0)
