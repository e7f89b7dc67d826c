"""What the answers asked at a node have set to work, as the JSON shape of `/api/v1/stats`.

Knows shapes only, so that the CLI can read them without importing the daemon.
"""

from msgspec import Struct


class SpecialistWork(Struct, frozen=True):
    """What one specialist did for this node: whole answers, or steps of answers by several.

    `failed` of them broke off or never began; in `doubted` ones another specialist was surer.
    """

    id: str
    answers: int
    failed: int
    doubted: int
    tokens: int
    seconds: float


class StatsState(Struct, frozen=True):
    """`GET /api/v1/stats`: sums over all answers asked here since the node started.

    `specialists` and `parameters` were set to work, out of the `_known` ones that each answer
    could have asked; `peers` counts those contacted. Bytes are those of messages with peers;
    `bytes_of_pages` peers fetched from each other. `plans` counts answers by how it was decided
    who answers; `named` means that the client said it.
    """

    schema_version: int
    answers: int
    failed: int
    steps: int
    resumed: int
    tokens: int
    specialists: int
    specialists_known: int
    parameters: int
    parameters_known: int
    peers: int
    bytes_sent: int
    bytes_received: int
    bytes_of_pages: int
    plans: dict[str, int]
    by_specialist: tuple[SpecialistWork, ...]
