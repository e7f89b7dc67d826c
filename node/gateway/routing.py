"""`POST /api/v1/route`: what would be done with a chat request, without doing it.

Knows the shape of the report; must not know how a plan is made.
"""

from aiohttp import web
from msgspec import Struct

from node.gateway import wire
from node.gateway.ports import AnswerSource
from node.gateway.reports import PlanReport, plan_report
from node.gateway.requests import RequestReader
from node.state import SCHEMA_VERSION
from protocols.ports import Clock


class RouteReport(Struct, frozen=True):
    """The plan, and who would begin. `seconds` is what it took to decide."""

    schema_version: int
    specialist: str
    peer: str
    second_choice: str | None
    why: str
    seconds: float
    plan: PlanReport | None


class RouteRoutes:
    """The endpoint; whoever may send prompts may ask."""

    def __init__(self, reader: RequestReader, answers: AnswerSource, clock: Clock) -> None:
        self._reader = reader
        self._answers = answers
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        return [web.post("/api/v1/route", self._route)]

    async def _route(self, request: web.Request) -> web.Response:
        wanted = await self._reader.chat(request)
        started = self._clock.monotonic()
        routed = await self._answers.route(wanted.ask)
        report = RouteReport(
            schema_version=SCHEMA_VERSION,
            specialist=routed.specialist,
            peer=routed.peer,
            second_choice=routed.second_choice,
            why=routed.why,
            seconds=round(self._clock.monotonic() - started, 4),
            plan=plan_report(routed.plan) if routed.plan else None,
        )
        return wire.json_response(report)
