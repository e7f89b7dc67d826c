"""Adapters that come and go on a running node, as the JSON shapes of `/api/v1/adapters`.

Knows shapes only, as `node.state`; must not know how adapters are loaded. Sizes are bytes.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocols import limits

NAME_MAX = 96


class AdapterOrder(Struct, frozen=True):
    """`POST /api/v1/adapters`: an adapter's `folder` on the node's machine, and whose it is.

    An empty `id` takes the adapter's own name, an empty `base` the only base model there is.
    """

    folder: Annotated[str, Meta(min_length=1, max_length=4_096)]
    id: Annotated[str, Meta(max_length=NAME_MAX)] = ""
    base: Annotated[str, Meta(max_length=NAME_MAX)] = ""
    domains: Annotated[tuple[str, ...], Meta(max_length=limits.DOMAINS_MAX)] = ()
    description: Annotated[str, Meta(max_length=4_096)] = ""


class AdapterState(Struct, frozen=True):
    """A specialist that is an adapter on a base here. `size` is in bytes, its own."""

    id: str
    base: str
    digest: str
    size: int
    domains: tuple[str, ...]
    is_activated: bool


class AdaptersState(Struct, frozen=True):
    """`GET /api/v1/adapters`; so do the verbs answer that change it."""

    schema_version: int
    adapters: tuple[AdapterState, ...]
