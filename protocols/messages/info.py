"""`/dslm/info/1`: who are you, what do you speak, how busy are you; its round trip is the ping.

Knows the fields and their bounds; nothing here is believed before it was measured.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocols import limits

Name = Annotated[str, Meta(max_length=96)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class InfoRequest(Struct, frozen=True, tag="info?"):
    """Client. `nonce` comes back, so that an answer belongs to its question."""

    nonce: Count
    software: Name = ""


class Load(Struct, frozen=True):
    """How busy a peer says it is: requests running and waiting, and what it can hold at once."""

    running: Count = 0
    waiting: Count = 0
    slots: Count = 0
    waiting_slots: Count = 0


class InfoReply(Struct, frozen=True, tag="info"):
    """Server. `clock` is its wall time (Unix seconds), to notice skew."""

    nonce: Count
    software: Name
    swarm: Name
    protocols: Annotated[tuple[Name, ...], Meta(max_length=32)]
    specialists: Annotated[tuple[Name, ...], Meta(max_length=limits.SPECIALISTS_MAX)]
    load: Load
    clock: Annotated[float, Meta(ge=0, le=1e11)]
    draining: bool = False
    name: Name = ""
