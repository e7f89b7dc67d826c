"""`GET /v1/models` and `/v1/models/{id}`: the specialists known here, as OpenAI lists models.

Knows local knowledge only, so that lists come at once; must not wait for the network.
"""

import difflib

from aiohttp import web
from msgspec import Struct

from coordinator.answer import AUTO
from node.gateway import wire
from node.gateway.swarm_choice import headed_swarm
from node.state import NodeView, SpecialistState
from protocols.errors import UnknownModel

_NEAREST_MAX = 3


class ModelReport(Struct, frozen=True):
    """The `dslm` field of a model: who hosts it, and so who can read its prompts."""

    nodes: int
    ready: bool
    is_local: bool
    peers: tuple[str, ...]
    domains: tuple[str, ...]
    precisions: tuple[str, ...]
    parameters: int
    licence: str


class Model(Struct, frozen=True, kw_only=True):
    """One model. OpenAI's fields, those that Open WebUI reads, and dslm's."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    name: str
    description: str
    context_length: int
    parent: str | None
    dslm: ModelReport


class ModelList(Struct, frozen=True):
    """All models; `auto` comes first, for programs that take the first."""

    data: tuple[Model, ...]
    object: str = "list"


class ModelRoutes:
    """The endpoints. `created` (Unix seconds) stands in for dates that cards do not have."""

    def __init__(self, view: NodeView, created: int) -> None:
        self._view = view
        self._created = created

    def routes(self) -> list[web.RouteDef]:
        """What the server adds. An id may hold a slash, plain or as %2F."""
        return [
            web.get("/v1/models", self._list),
            web.get("/v1/models/{id:.+}", self._retrieve),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        return wire.json_response(ModelList(self._models(request)))

    async def _retrieve(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        models = {model.id: model for model in self._models(request)}
        if name not in models:
            nearest = difflib.get_close_matches(name[:200], models, n=_NEAREST_MAX, cutoff=0.4)
            raise UnknownModel(name[:200], tuple(nearest))
        return wire.json_response(models[name])

    def _models(self, request: web.Request) -> tuple[Model, ...]:
        specialists = self._view.specialists(headed_swarm(self._view, request).name).models
        if not specialists:
            return ()
        return (self._auto(specialists), *(self._model(known) for known in specialists))

    def _model(self, known: SpecialistState) -> Model:
        owner, slash, name = known.id.rpartition("/")
        return Model(
            id=known.id,
            created=self._created,
            owned_by=owner if slash else "dslm",
            name=name,
            description=known.description,
            context_length=known.context_length,
            parent=None if known.is_base else known.base,
            dslm=ModelReport(
                nodes=len(known.peers),
                ready=bool(known.peers),
                is_local=known.is_local,
                peers=known.peers,
                domains=known.domains,
                precisions=known.precisions,
                parameters=known.parameters,
                licence=known.licence,
            ),
        )

    def _auto(self, specialists: tuple[SpecialistState, ...]) -> Model:
        peers = sorted({peer for known in specialists for peer in known.peers})
        return Model(
            id=AUTO,
            created=self._created,
            owned_by="dslm",
            name="Automatic",
            description="The specialist whose domain lies nearest to the prompt.",
            context_length=min(known.context_length for known in specialists),
            parent=None,
            dslm=ModelReport(
                nodes=len(peers),
                ready=bool(peers),
                is_local=any(known.is_local for known in specialists),
                peers=tuple(peers),
                domains=tuple(sorted({word for known in specialists for word in known.domains})),
                precisions=(),
                parameters=0,
                licence="",
            ),
        )
