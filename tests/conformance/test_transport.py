"""What every `Transport` guarantees. The client half runs over the client-only adapter as well."""

import asyncio
import contextlib
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from protocols.codec import FrameDecoder, encode
from protocols.errors import DslmError, PeerLost, PeerUnreachable
from protocols.ids import PeerId, parse_peer_id
from protocols.messages.ask import Accepted, Ask, ClientMessage, Text
from protocols.messages.ask import Sampling as AskSampling
from protocols.ports import Stream
from protocols.signing import Identity

if TYPE_CHECKING:
    from tests.conformance.conftest import Pair

MEBIBYTE = 1 << 20
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def server(pair: "Pair") -> PeerId:
    peer: PeerId = await pair.client.connect(pair.address)
    return peer


async def receive_exactly(stream: Stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await stream.receive()
        assert piece, f"the stream ended after {len(data)} of {count} bytes"
        data += piece
    return data


async def receive_all(stream: Stream) -> bytes:
    data = b""
    while piece := await stream.receive():
        data += piece
    return data


async def exchange(stream: Stream, data: bytes) -> bytes:
    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(receive_exactly(stream, len(data)))
        tasks.create_task(stream.send(data))
    return answer.result()


async def test_connect_tells_who_answered(pair: "Pair") -> None:
    expected = pair.address.rpartition("/p2p/")[2]
    assert await pair.client.connect(pair.address) == expected


async def test_both_ends_know_each_other_by_handshake(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stream = await pair.client.open_stream(server, behaviours.WHO)
    assert stream.peer == server
    assert await receive_all(stream) == pair.client.peer_id.encode()
    await stream.close()


async def test_echo_small(pair: "Pair", server: PeerId, behaviours: ModuleType) -> None:
    stream = await pair.client.open_stream(server, behaviours.ECHO)
    assert await exchange(stream, b"x") == b"x"
    await stream.close()


async def test_echo_of_a_mebibyte_is_exact(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stream = await pair.client.open_stream(server, behaviours.ECHO)
    data = b"".join(number.to_bytes(4, "big") for number in range(MEBIBYTE // 4))
    assert await exchange(stream, data) == data
    await stream.close()


async def test_many_pieces_arrive_whole(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stream = await pair.client.open_stream(server, behaviours.COUNT)
    for _ in range(200):
        await stream.send(b"x" * 997)
    await stream.send(b"\n")
    assert await stream.receive() == str(200 * 997 + 1).encode()
    await stream.close()


async def test_what_was_sent_before_an_orderly_end_arrives_in_order(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stream = await pair.client.open_stream(server, behaviours.PARTING)
    await stream.send(b"?")
    lines = (await receive_all(stream)).decode().splitlines()
    assert lines == [str(number) for number in range(behaviours.COUNTED)]
    assert await stream.receive() == b"", "an end stays an end"
    await stream.close()


async def test_receive_gives_at_most_what_was_asked(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stream = await pair.client.open_stream(server, behaviours.ECHO)
    await stream.send(b"0123456789")
    assert await stream.receive(1) == b"0"
    assert await receive_exactly(stream, 9) == b"123456789"
    await stream.close()


async def test_opening_dials_the_addresses_given(
    fresh_pair: "Pair", behaviours: ModuleType
) -> None:
    server = parse_peer_id(fresh_pair.address.rpartition("/p2p/")[2])
    stream = await fresh_pair.client.open_stream(server, behaviours.ECHO, [fresh_pair.address])
    assert await exchange(stream, b"hello") == b"hello"
    await stream.close()


async def test_an_unknown_protocol_is_unreachable(pair: "Pair", server: PeerId) -> None:
    with pytest.raises(PeerUnreachable):
        await pair.client.open_stream(server, "/conformance/nobody-serves-this/1")


async def test_an_unknown_peer_is_unreachable(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stranger = Identity.generate().peer_id
    assert stranger != server
    async with asyncio.timeout(8):
        with pytest.raises(PeerUnreachable):
            await pair.client.open_stream(stranger, behaviours.ECHO)


async def test_an_address_where_another_peer_answers_is_unreachable(pair: "Pair") -> None:
    where = pair.address.rpartition("/p2p/")[0]
    async with asyncio.timeout(8):
        with pytest.raises(DslmError):
            await pair.client.connect(f"{where}/p2p/{Identity.generate().peer_id}")


@pytest.mark.parametrize("text", ["", "nonsense", "/ip4/127.0.0.1/tcp/1", "/p2p/12D3KooWx"])
async def test_a_text_that_is_no_address_is_refused(pair: "Pair", text: str) -> None:
    with pytest.raises(DslmError):
        await pair.client.connect(text)


async def test_a_failing_handler_ends_its_stream_and_no_other(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    other = await pair.client.open_stream(server, behaviours.ECHO)
    stream = await pair.client.open_stream(server, behaviours.FAIL)
    await stream.send(b"?")
    async with asyncio.timeout(5):
        with contextlib.suppress(PeerLost):  # a transport may or may not tell it from an end
            assert await stream.receive() == b""
    assert await exchange(other, b"still here") == b"still here"
    assert await exchange(await pair.client.open_stream(server, behaviours.ECHO), b"new ones too")


async def test_streams_do_not_mix(pair: "Pair", server: PeerId, behaviours: ModuleType) -> None:
    async def talk(number: int) -> None:
        stream = await pair.client.open_stream(server, behaviours.ECHO)
        for turn in range(10):
            data = f"{number}/{turn} ".encode() * 100
            assert await exchange(stream, data) == data
        await stream.close()

    async with asyncio.TaskGroup() as tasks:
        for number in range(30):  # fewer than a peer may have at a time
            tasks.create_task(talk(number))


async def test_a_closed_stream_is_of_no_more_use(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stream = await pair.client.open_stream(server, behaviours.ECHO)
    await stream.close()
    await stream.close()
    with pytest.raises(PeerLost):
        await stream.send(b"x")
    with pytest.raises(PeerLost):
        await stream.receive()


async def test_an_aborted_stream_is_of_no_more_use(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stream = await pair.client.open_stream(server, behaviours.ECHO)
    stream.abort()
    stream.abort()
    with pytest.raises(PeerLost):
        await stream.receive()
    await stream.close()


async def test_cancelling_a_receive_harms_nothing(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stream = await pair.client.open_stream(server, behaviours.ECHO)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await stream.receive()
    assert await exchange(stream, b"after") == b"after"
    await stream.close()


async def test_frames_of_the_ask_protocol_pass(
    pair: "Pair", server: PeerId, behaviours: ModuleType
) -> None:
    stream = await pair.client.open_stream(server, behaviours.ECHO)
    ask = Ask("r1", 0, "base", Text("hello"), AskSampling(), 5, 10.0)
    decoder: FrameDecoder[ClientMessage] = FrameDecoder(ClientMessage)
    await stream.send(encode(ask, b"payload"))
    frames = decoder.feed(await stream.receive())
    while not frames:
        frames = decoder.feed(await stream.receive())
    assert (frames[0].message, frames[0].payload) == (ask, b"payload")
    assert not isinstance(frames[0].message, Accepted)
    await stream.close()


async def test_the_transport_closes_twice(fresh_pair: "Pair", behaviours: ModuleType) -> None:
    await fresh_pair.client.close()
    await fresh_pair.client.close()
    with pytest.raises(DslmError):
        await fresh_pair.client.open_stream(
            parse_peer_id(fresh_pair.address.rpartition("/p2p/")[2]),
            behaviours.ECHO,
            [fresh_pair.address],
        )


class TestServing:
    """The half that a client-only transport leaves out."""

    @pytest.fixture
    def serving(self, pair: "Pair") -> "Pair":
        if pair.server is None:
            pytest.skip("a client-only transport does not serve")
        return pair

    async def test_addresses_end_in_our_peer_id(self, serving: "Pair") -> None:
        assert serving.server is not None
        assert serving.server.addresses()
        for address in serving.server.addresses():
            assert address.endswith(f"/p2p/{serving.server.peer_id}")

    async def test_the_handler_sees_the_end_of_an_aborted_stream(
        self, serving: "Pair", server: PeerId
    ) -> None:
        assert serving.server is not None
        ended = asyncio.Event()

        async def wait_for_end(stream: Stream) -> None:
            try:
                while await stream.receive():
                    pass
            except PeerLost:
                pass
            ended.set()

        await serving.server.serve("/conformance/end/1", wait_for_end)
        stream = await serving.client.open_stream(server, "/conformance/end/1")
        await stream.send(b"x")
        stream.abort()
        async with asyncio.timeout(5):
            await ended.wait()

    async def test_data_sent_before_close_reaches_the_handler(
        self, serving: "Pair", server: PeerId
    ) -> None:
        assert serving.server is not None
        seen: asyncio.Queue[bytes] = asyncio.Queue()

        async def collect(stream: Stream) -> None:
            seen.put_nowait(await receive_all(stream))

        await serving.server.serve("/conformance/collect/1", collect)
        stream = await serving.client.open_stream(server, "/conformance/collect/1")
        await stream.send(b"y" * 300_000)
        await stream.close()
        async with asyncio.timeout(5):
            assert await seen.get() == b"y" * 300_000

    async def test_the_server_can_open_a_stream_back(self, serving: "Pair", server: PeerId) -> None:
        assert serving.server is not None

        async def greet(stream: Stream) -> None:
            await stream.send(b"hello")

        await serving.client.serve("/conformance/greet/1", greet)
        stream = await serving.server.open_stream(
            serving.client.peer_id, "/conformance/greet/1", serving.client.addresses()
        )
        assert await receive_all(stream) == b"hello"
        assert server == serving.server.peer_id

    async def test_a_slow_reader_holds_the_sender_up(self, serving: "Pair", server: PeerId) -> None:
        assert serving.server is not None
        go_on = asyncio.Event()

        async def wait_first(stream: Stream) -> None:
            await go_on.wait()
            while await stream.receive(MEBIBYTE):
                pass

        await serving.server.serve("/conformance/slow/1", wait_first)
        stream = await serving.client.open_stream(server, "/conformance/slow/1")
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for _ in range(64):
                await stream.send(b"z" * MEBIBYTE)
                sent += 1

        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send_all())
            done, _ = await asyncio.wait({sending}, timeout=1.0)
            assert not done, "64 MiB were taken with nobody reading"
            go_on.set()
        assert sent == 64
        await stream.close()
