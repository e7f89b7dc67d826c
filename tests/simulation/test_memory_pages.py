"""Memory over a network in virtual time: honest peers, dying ones, liars, and strangers.

Pages are made of their tokens' sum, so that a wrong one is seen.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from node.services.memory import TRANSFERS_MAX, MemorySettings, NodeMemory
from node.services.memory_fetch import SILENCE_SECONDS, Fetching, FetchParts, MemoryRecall
from node.services.memory_notes import READS_MAX
from node.services.memory_ports import PromptPages
from node.services.memory_stream import MemoryStream
from protocols import versions
from protocols.adapters.memory import MemoryNetwork, MemoryPeer
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.codec import Frame, FrameDecoder, encode
from protocols.errors import ProtocolError
from protocols.ids import PeerId, SpecialistId
from protocols.memory import page_bytes, page_names
from protocols.messages.ask import Ask, Sampling, Text
from protocols.messages.memory import Done, Encoding, Found, MemoryReply, PageLayout, Pages, Want
from protocols.ports import Stream
from protocols.signing import Identity

LAW, LAYOUT = SpecialistId("law"), PageLayout("base", "fp32", 30, 3, 64, 16)
SIZE = page_bytes(LAYOUT, "i8")
PROMPT = tuple(range(1_600))
TICKET = "t" * 64


@dataclass
class FakePages:
    """A `PageMemory` whose engine computes `rate` tokens a second from the beginning."""

    layout: PageLayout = LAYOUT
    prompt_rate: float = 500.0
    start: int = 1_590
    known: set[int] = field(default_factory=set)
    taken: list[int] = field(default_factory=list)
    gone: int = -1
    """From this page down nothing is there any more when it is exported."""
    seconds: float = 0.01
    owners: set[tuple[str, str, str]] = field(default_factory=set)

    def base_tokens(self, prompt: tuple[int, ...]) -> int:
        return min(self.start, len(prompt))

    async def missing(self, pages: PromptPages, most: int) -> range:
        self.owners.add((pages.client, pages.tenant, pages.chain))
        gaps = [index for index in range(most) if index not in self.known]
        return range(gaps[0], gaps[-1] + 1) if gaps else range(most, most)

    async def export(self, pages: PromptPages, first: int, count: int, encoding: Encoding) -> bytes:  # noqa: ARG002
        await asyncio.sleep(self.seconds)
        if first <= self.gone:
            return b""
        return b"".join(_page(pages, first + at) for at in range(count))

    async def take(self, pages: PromptPages, first: int, data: bytes, encoding: Encoding) -> int:  # noqa: ARG002
        fresh = 0
        for at in range(len(data) // SIZE):
            page = data[at * SIZE : (at + 1) * SIZE]
            if page != _page(pages, first + at):
                raise ProtocolError("not a page of this prompt")
            fresh += first + at not in self.known
            self.known.add(first + at)
            self.taken.append(first + at)
        return fresh


def _page(pages: PromptPages, index: int) -> bytes:
    return bytes([sum(pages.tokens[index * 16 : (index + 1) * 16]) % 251]) * SIZE


class Scene:
    """`first` has read the prompt for `client`; `second` is asked to go on."""

    def __init__(self, network: MemoryNetwork, tasks: asyncio.TaskGroup) -> None:
        self.network = network
        clock = LoopClock()
        self.first, self.second, self.other = (
            network.join(Identity(bytes([n] * 32))) for n in (1, 2, 3)
        )
        self.trusted = {self.first.peer_id, self.second.peer_id}
        self.there, self.here = FakePages(known=set(range(99))), FakePages()
        self.memory_there = NodeMemory({LAW: self.there}, clock)
        self.memory_here = NodeMemory({LAW: self.here}, clock, MemorySettings())
        self.recall_there = self.recall(self.first, self.memory_there, tasks)
        self.recall_here = self.recall(self.second, self.memory_here, tasks)

    def recall(
        self, peer: MemoryPeer, memory: NodeMemory, tasks: asyncio.TaskGroup
    ) -> MemoryRecall:
        return MemoryRecall(
            memory, FetchParts(peer.transport, self.is_trusted, self.addresses, tasks)
        )

    def is_trusted(self, peer: PeerId) -> bool:
        return peer in self.trusted

    def addresses(self, peer: PeerId) -> tuple[str, ...]:
        return self.network._peers[peer].addresses()

    async def open(self) -> None:
        for peer, memory in ((self.first, self.memory_there), (self.second, self.memory_here)):
            await peer.transport.serve(versions.MEMORY, MemoryStream(memory, self.is_trusted))
        self.recall_there.begin(ask(), PROMPT, PeerId("client"))

    def fetch(self, **changes: str) -> Fetching:
        return self.recall_here.begin(ask(self.first.peer_id, **changes), PROMPT, PeerId("client"))

    async def wait_fetched(self, fetching: Fetching, pages: int) -> None:
        for _ in range(1_000):
            if fetching.pages >= pages:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"only {fetching.pages} pages came")

    async def said(self, peer: MemoryPeer, want: Want) -> list[Frame[MemoryReply]]:
        stream = await peer.transport.open_stream(
            self.first.peer_id, versions.MEMORY, self.first.transport.addresses()
        )
        decoder: FrameDecoder[MemoryReply] = FrameDecoder(MemoryReply)
        await stream.send(encode(want))
        frames: list[Frame[MemoryReply]] = []
        while data := await stream.receive():
            frames += decoder.feed(data)
        stream.abort()
        return frames


def ask(at: str = "", ticket: str = TICKET) -> Ask:
    return Ask("r", 0, LAW, Text("x"), Sampling(), 9, 60.0, memory_at=at, memory_ticket=ticket)


def want(ticket: str = TICKET, tokens: tuple[int, ...] = PROMPT, first: int = 0) -> Want:
    return Want(ticket, LAYOUT, "i8", page_names(LAYOUT, ticket, tokens, 99), first)


def play(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        async with MemoryNetwork(1, LoopClock()) as network, asyncio.TaskGroup() as tasks:
            scene = Scene(network, tasks)
            await scene.open()
            await story(scene)
            assert network.defects == []

    run_virtual(main())


def test_all_pages_before_the_adapter_come_from_the_end_down() -> None:
    async def story(scene: Scene) -> None:
        fetching = scene.fetch()
        await fetching.wait()
        assert scene.here.known == set(range(99))
        groups = [scene.here.taken[at : at + 5] for at in range(0, 99, 5)]
        assert [group[0] for group in groups] == sorted((g[0] for g in groups), reverse=True)
        assert (fetching.pages, fetching.size) == (99, 99 * SIZE)
        counts = scene.memory_here.counts
        assert (counts.pages_fetched, counts.bytes_fetched, counts.transfers_failed) == (
            99,
            99 * SIZE,
            0,
        )
        assert scene.memory_there.counts.pages_sent == 99
        assert scene.there.owners == {("client", "", TICKET)}, "the asking client's own pages"

    play(story)


def test_the_transfer_ends_where_computing_has_come_to() -> None:
    async def story(scene: Scene) -> None:
        fetching = scene.fetch()
        await scene.wait_fetched(fetching, 50)
        scene.here.known |= set(range(45))
        await fetching.wait()
        assert fetching.pages <= 99 - 45
        assert len(scene.here.taken) < 65
        await asyncio.sleep(1)
        assert scene.memory_there.counts.pages_sent < 75
        assert scene.memory_there.sending == 0

    play(story)


def test_a_request_that_needs_no_more_stops_it() -> None:
    async def story(scene: Scene) -> None:
        fetching = scene.fetch()
        await scene.wait_fetched(fetching, 1)
        fetching.stop()
        fetching.stop()
        await fetching.wait()
        assert fetching.pages < 99
        await asyncio.sleep(1)
        assert scene.memory_there.sending == 0
        assert scene.memory_here.counts.transfers_failed == 0

    play(story)


def test_a_window_at_the_end_is_computed() -> None:
    async def story(scene: Scene) -> None:
        scene.memory_here.settings = MemorySettings(window=100)
        await scene.fetch().wait()
        assert scene.here.known == set(range((1_590 - 100) // 16))

    play(story)


def test_what_is_here_already_is_not_fetched() -> None:
    async def story(scene: Scene) -> None:
        scene.here.known = set(range(80))
        fetching = scene.fetch()
        await fetching.wait()
        assert fetching.pages == 19
        scene.here.known = set(range(97))
        again = scene.fetch()
        await again.wait()
        assert again.pages == 0, "two pages are computed as quickly"

    play(story)


def test_what_came_before_a_transfer_was_stopped_is_of_use_to_the_next() -> None:
    async def story(scene: Scene) -> None:
        scene.here.known = {*range(30), *range(60, 99)}
        fetching = scene.fetch()
        await fetching.wait()
        assert sorted(scene.here.taken) == list(range(30, 60))
        assert fetching.size == 30 * SIZE

    play(story)


def test_requests_of_one_task_share_a_transfer() -> None:
    async def story(scene: Scene) -> None:
        first, second = scene.fetch(), scene.fetch()
        await first.wait()
        await second.wait()
        assert (first.pages, second.pages) == (99, 0)
        scene.here.known.clear()
        third = scene.fetch()
        await third.wait()
        assert third.pages == 99, "it was over"

    play(story)


def test_a_peer_that_dies_in_the_middle_costs_nothing() -> None:
    async def story(scene: Scene) -> None:
        fetching = scene.fetch()
        await scene.wait_fetched(fetching, 20)
        scene.network.kill(scene.first.peer_id)
        await fetching.wait()
        assert 20 <= fetching.pages < 99
        assert scene.memory_here.counts.transfers_failed == 1
        assert not scene.memory_here.links.is_faulty(scene.first.peer_id, LoopClock().monotonic())

    play(story)


def test_a_peer_that_falls_silent_is_given_up() -> None:
    async def story(scene: Scene) -> None:
        scene.there.seconds = 100 * SILENCE_SECONDS
        began = asyncio.get_running_loop().time()
        fetching = scene.fetch()
        await fetching.wait()
        assert asyncio.get_running_loop().time() - began < 2 * SILENCE_SECONDS
        assert scene.memory_here.counts.transfers_failed == 1

    play(story)


def test_pages_that_had_to_go_end_it_early() -> None:
    async def story(scene: Scene) -> None:
        scene.there.gone = 40
        fetching = scene.fetch()
        await fetching.wait()
        assert 50 <= fetching.pages <= 59
        assert scene.memory_here.counts.transfers_failed == 0

    play(story)


LIES: dict[str, Callable[[Want], list[bytes]]] = {
    "numbers that are none": lambda w: [
        encode(Found(99)),
        encode(Pages(98, 1, w.names[98]), bytes([255]) * SIZE),
    ],
    "a wrong size": lambda w: [encode(Found(99)), encode(Pages(98, 1, w.names[98]), bytes(9))],
    "another name": lambda _: [encode(Found(99)), encode(Pages(98, 1, bytes(16)), bytes(SIZE))],
    "more than was asked for": lambda _: [encode(Found(200))],
    "no frame": lambda _: [b"\xff" * 64],
    "no message": lambda _: [b"\x00\x00\x00\x04\x00\x00\x00\x00" + b"\xc1" * 4],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_liar_is_not_believed_and_not_asked_again(lie: str) -> None:
    async def story(scene: Scene) -> None:
        asked = []

        async def answer(stream: Stream) -> None:
            decoder: FrameDecoder[Want] = FrameDecoder(Want)
            frames: list[Frame[Want]] = []
            while not frames:
                frames = decoder.feed(await stream.receive())
            asked.append(frames[0].message)
            for data in LIES[lie](frames[0].message):
                await stream.send(data)
            await asyncio.sleep(1)

        await scene.first.transport.serve(versions.MEMORY, answer)
        for _ in range(2):
            fetching = scene.fetch()
            await fetching.wait()
            assert fetching.pages == 0
        assert len(asked) == 1
        assert scene.here.known == set()
        assert scene.memory_here.counts.transfers_failed == 1

    play(story)


def test_nothing_is_fetched_without_a_ticket_or_from_strangers_or_oneself() -> None:
    async def story(scene: Scene) -> None:
        for at, ticket in (
            (scene.first.peer_id, ""),
            (scene.other.peer_id, TICKET),
            (scene.second.peer_id, TICKET),
            ("", TICKET),
            ("no peer id", TICKET),
        ):
            fetching = scene.recall_here.begin(ask(at, ticket), PROMPT, None)
            await fetching.wait()
            assert fetching.pages == 0
        assert scene.memory_there.counts.pages_sent == 0

    play(story)


def test_who_may_not_have_pages_cannot_tell_whether_there_are_any() -> None:
    async def story(scene: Scene) -> None:
        nothing = [Frame(Found(0)), Frame(Done())]
        assert await scene.said(scene.other, want()) == nothing, "a stranger"
        other = tuple(reversed(PROMPT))
        for wrong in (want("u" * 64), want(tokens=other)):
            assert await scene.said(scene.second, wrong) == nothing
        part = (*PROMPT[:800], *other[:800])
        (found, *rest) = await scene.said(scene.second, want(tokens=part, first=49))
        assert found.message == Found(50)
        assert len(rest) == 2
        scene.memory_there.sending = TRANSFERS_MAX
        assert await scene.said(scene.second, want()) == nothing

    play(story)


def test_a_note_is_read_so_often_and_no_more() -> None:
    async def story(scene: Scene) -> None:
        last = want(first=98)
        for _ in range(READS_MAX):
            assert len(await scene.said(scene.second, last)) == 3
        assert len(await scene.said(scene.second, last)) == 2

    play(story)


def test_a_slow_link_is_left_alone_once_it_is_known() -> None:
    async def story(scene: Scene) -> None:
        scene.here.prompt_rate = 50_000.0
        scene.there.seconds = 1.0
        first = scene.fetch()
        await asyncio.sleep(3)
        first.stop()
        await first.wait()
        scene.here.known.clear()
        before = scene.memory_there.counts.pages_sent
        await scene.fetch().wait()
        assert scene.memory_there.counts.pages_sent == before

    play(story)
