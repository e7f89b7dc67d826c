"""Messages of `/dslm/memory/1`: pages of keys and values, by name.

Knows fields and bounds; the order of messages and what a name is made of are `protocols.memory`'s.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from protocols import limits

NAME_BYTES = 16
"""Of the name of a page."""

Encoding = Literal["f32", "bf16", "i8"]
"""`i8` has a scale for each token and head, in f16."""
Name = Annotated[bytes, Meta(min_length=NAME_BYTES, max_length=NAME_BYTES)]
Index = Annotated[int, Meta(ge=0, le=limits.MEMORY_PAGES_MAX)]
_Size = Annotated[int, Meta(ge=1, le=65_536)]


class PageLayout(Struct, frozen=True):
    """What must be alike for pages of one peer to mean anything to another.

    `base` is the digest of the weights, `precision` what they are held in. A page has the keys and
    values of `page_tokens` tokens, `[layers, kv_heads, page_tokens, dimension]` each.
    """

    base: Annotated[str, Meta(min_length=1, max_length=64)]
    precision: Annotated[str, Meta(max_length=16)]
    layers: _Size
    kv_heads: _Size
    dimension: _Size
    page_tokens: _Size


class Want(Struct, frozen=True, tag="want"):
    """Client, the only message: the pages `names`, from number `first` on, as far as you have them.

    `names` are those of a prompt from its beginning. They are made with the `ticket`, so that only
    who knows the ticket and the prompt can say them.
    """

    ticket: Annotated[str, Meta(min_length=1, max_length=64)]
    layout: PageLayout
    encoding: Encoding
    names: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=limits.MEMORY_PAGES_MAX)]
    first: Index = 0


class Found(Struct, frozen=True, tag="found"):
    """Server, first: the first so many of the names are known here. 0 is also said instead of no.

    Those from `Want.first` on follow.
    """

    pages: Index


class Pages(Struct, frozen=True, tag="pages"):
    """Server: `count` pages beginning with number `first`; the last of them is called `name`.

    They come from the end to the beginning, while the client computes from the beginning. The
    payload has keys `[layers, kv_heads, tokens, dimension]`, values alike and, for `i8`, the scales
    of the keys and of the values `[layers, kv_heads, tokens]` in f16.
    """

    first: Index
    count: Annotated[int, Meta(ge=1, le=limits.MEMORY_PAGES_MAX)]
    name: Name


class Done(Struct, frozen=True, tag="done"):
    """Server, last: that is all. There may be less than was found, if pages had to go meanwhile."""


MemoryRequest = Want
MemoryReply = Found | Pages | Done
