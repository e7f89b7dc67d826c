"""Parsers of the libp2p adapter: the record store's messages behind the guard, p2pd's, addresses.

Knows hivemind only as the adapter does. Two targets run hivemind's own code behind the guard: what
the guard lets through must not break that either.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError
from hivemind.proto import dht_pb2, p2pd_pb2
from hivemind.utils import timed_storage

from protocols import allowances, records
from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p.address import parse_address, parse_listen
from protocols.adapters.libp2p.control import receive_header
from protocols.adapters.libp2p.dht_messages import (
    Entry,
    clean_find_response,
    clean_store,
    node_id_of,
    pack_dictionary,
    parse,
    unpack_dictionary,
    weight,
)
from protocols.adapters.libp2p.pipe import Pipe
from protocols.adapters.libp2p.places import place_of
from protocols.adapters.libp2p.records import Libp2pRecords
from protocols.adapters.libp2p.verdict import Judge, Verdict
from protocols.errors import Busy, DslmError, ProtocolError, UserError
from protocols.ids import parse_peer_id
from tests.fuzz.spans import varint
from tests.fuzz.target import ALICE, BOB, NOW, Maker, Target, run_to_end
from tests.fuzz.wire_targets import RECORDS as WIRE_RECORDS
from tests.fuzz.wire_targets import sealed_records

_ALICE, _BOB = PeerID.from_base58(ALICE.peer_id), PeerID.from_base58(BOB.peer_id)
_ALICE_ID, _BOB_ID = node_id_of(_ALICE), node_id_of(_BOB)
_KEYS = (bytes(20), bytes(range(20)))
_VALUE = msgspec.msgpack.encode(b"a sealed record")
_ENTRIES = (Entry(BOB.peer_id, _VALUE, NOW + 60), Entry(ALICE.peer_id, _VALUE, NOW + 90))
_DICTIONARY = pack_dictionary(_ENTRIES)
_BOB_INFO = dht_pb2.NodeInfo(node_id=_BOB_ID)
_RENEW_AFTER = 5_000
"""Inputs after which the node starts anew, so that its table does not look like a leak."""
_FULL_AGAIN_SECONDS = 1.0 + allowances.KNOWN.burst / allowances.KNOWN.requests_per_second


def _store_requests() -> tuple[bytes, ...]:
    subkey = msgspec.msgpack.encode(BOB.peer_id)
    one = dht_pb2.StoreRequest(
        keys=[_KEYS[0]],
        subkeys=[subkey],
        values=[_VALUE],
        expiration_time=[NOW + 60],
        in_cache=[False],
        peer=_BOB_INFO,
    )
    many = dht_pb2.StoreRequest(
        keys=[*_KEYS, _KEYS[0]],
        subkeys=[subkey, b"", subkey],
        values=[_VALUE, _DICTIONARY, _VALUE],
        expiration_time=[NOW + 60, NOW + 90, NOW + 120],
        in_cache=[False, False, True],
        peer=_BOB_INFO,
    )
    return one.SerializeToString(), many.SerializeToString()


def _find_requests() -> tuple[bytes, ...]:
    return (
        dht_pb2.FindRequest(keys=_KEYS, peer=_BOB_INFO).SerializeToString(),
        dht_pb2.FindRequest(keys=_KEYS[:1]).SerializeToString(),
    )


def _find_responses() -> tuple[bytes, ...]:
    found = dht_pb2.FindResult(
        type=dht_pb2.FOUND_DICTIONARY,
        value=_DICTIONARY,
        expiration_time=NOW + 90,
        nearest_node_ids=[_ALICE_ID, _BOB_ID],
        nearest_peer_ids=[_ALICE.to_bytes(), _BOB.to_bytes()],
    )
    plain = dht_pb2.FindResult(type=dht_pb2.FOUND_REGULAR, value=_VALUE, expiration_time=NOW + 9)
    return (
        dht_pb2.FindResponse(results=[found, plain], peer=_BOB_INFO).SerializeToString(),
        dht_pb2.FindResponse(
            results=[dht_pb2.FindResult(type=dht_pb2.NOT_FOUND), found]
        ).SerializeToString(),
    )


def guard_parse(folder: Path) -> Target:  # noqa: ARG001
    """Any bytes as each of the store's messages."""
    kinds = (dht_pb2.PingRequest, dht_pb2.StoreRequest, dht_pb2.FindRequest, dht_pb2.FindResponse)

    def run(data: bytes) -> None:
        accepted = 0
        for kind in kinds:
            try:
                parse(kind, data)
            except ProtocolError:
                continue
            accepted += 1
        if not accepted:
            raise ProtocolError("none of the messages")

    seeds = (*_store_requests(), *_find_requests(), *_find_responses())
    return Target(run, (ProtocolError,), seeds, "protobuf")


def guard_store(folder: Path) -> Target:  # noqa: ARG001
    """STORE requests: what stays is of the one harmless shape."""

    def run(data: bytes) -> None:
        request = parse(dht_pb2.StoreRequest, data)
        cleaned, kept = clean_store(request, NOW)
        assert len(kept) == len(request.keys)
        assert sum(kept) == len(cleaned.keys) == len(cleaned.values)
        for subkey, expires_at in zip(cleaned.subkeys, cleaned.expiration_time, strict=True):
            # hivemind looks at the ends inside a dictionary, not at the one beside it.
            assert NOW < expires_at <= NOW + 3_660 or subkey == b""

    return Target(run, (ProtocolError,), _store_requests(), "protobuf")


def guard_find_response(folder: Path) -> Target:  # noqa: ARG001
    """FIND answers: what stays is of the one harmless shape."""

    def run(data: bytes) -> None:
        response = parse(dht_pb2.FindResponse, data)
        clean_find_response(response, _BOB, 2, NOW)
        for result in response.results:
            assert result.type in (dht_pb2.NOT_FOUND, dht_pb2.FOUND_DICTIONARY)
            for peer in result.nearest_peer_ids:
                parse_peer_id(PeerID(peer).to_base58())

    return Target(run, (ProtocolError,), _find_responses(), "protobuf")


def guard_dictionary(folder: Path) -> Target:  # noqa: ARG001
    """Packed dictionaries, whose extension length is put right."""

    def run(data: bytes) -> None:
        packed = msgspec.msgpack.encode(msgspec.msgpack.Ext(0x50, data))
        for entry in unpack_dictionary(packed, NOW):
            assert parse_peer_id(entry.subkey) == entry.subkey
            assert NOW < entry.expires_at <= NOW + 3_660

    body = msgspec.msgpack.decode(_DICTIONARY).data
    return Target(run, (ProtocolError,), (bytes(body),), "msgpack")


def guard_dictionary_raw(folder: Path) -> Target:  # noqa: ARG001
    """Packed dictionaries as they come."""

    def run(data: bytes) -> None:
        unpack_dictionary(data, NOW)

    return Target(run, (ProtocolError,), (_DICTIONARY,), "raw", (b"\xc7\x03\x50", b"\xc8"))


class _Wire:
    """Stands in for the connection to p2pd: keeps handlers, and answers calls with given bytes."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[bytes, PeerID], Awaitable[bytes]]] = {}
        self.answer = b""

    async def add_unary_handler(
        self, name: str, handler: Callable[[bytes, PeerID], Awaitable[bytes]], **_more: object
    ) -> None:
        """Keep a handler."""
        self.handlers[name] = handler

    async def remove_unary_handler(self, name: str, **_more: object) -> None:
        """Drop a handler."""
        self.handlers.pop(name, None)

    async def call_unary_handler(self, *_call: object) -> bytes:
        """What the other peer says."""
        return self.answer


class _Complaints(logging.Handler):
    """Keeps what the guard writes when hivemind breaks on something that was let through."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.kept: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception."""
        if record.exc_info and record.exc_info[1]:
            self.kept.append(record.exc_info[1])


def _is_too_heavy(name: str, data: bytes) -> bool:
    """Whether a request is worth more than its sender may ever ask at once: then it is never
    carried out, whatever the rest of it says.
    """
    kind = dht_pb2.StoreRequest if name.endswith("store") else dht_pb2.FindRequest
    return 1 + weight(parse(kind, data)) > allowances.KNOWN.burst


class _Node:
    """The record store as the adapter wires it, hivemind's DHT inside, with no network below."""

    def __init__(self) -> None:
        vars(timed_storage)["get_dht_time"] = lambda: NOW  # inputs carry times: they must stay true
        self.loop = asyncio.new_event_loop()
        self._complaints = _Complaints()
        logger = logging.getLogger("protocols.adapters.libp2p.guard")
        logger.addHandler(self._complaints)
        logger.propagate = False
        logging.getLogger("hivemind").setLevel(logging.CRITICAL)
        self._age = 0
        self._start()

    def _start(self) -> None:
        self.wire = _Wire()
        self._clock = ManualClock(NOW)
        self._records: Any = Libp2pRecords(ALICE.peer_id, self._clock)
        client = SimpleNamespace(_client=SimpleNamespace(control=self.wire))
        daemon: Any = SimpleNamespace(p2p=client)
        self.loop.run_until_complete(self._records.attach(daemon))

    def serve(self, name: str, data: bytes) -> bytes:
        """What the node answers Bob."""
        self._grow_older()
        handler = next(one for key, one in self.wire.handlers.items() if key.endswith(name))
        try:
            answer: bytes = self.loop.run_until_complete(self._settled(handler(data, _BOB)))
        except Busy as error:
            if not _is_too_heavy(name, data):
                raise AssertionError("turned away unread") from error
            raise
        finally:
            if self._complaints.kept:
                raise AssertionError("hivemind broke") from self._complaints.kept.pop()
        return answer

    def ask(self, answer: bytes) -> object:
        """What the node makes of Bob's answer to a question for two keys."""
        self._grow_older()
        self.wire.answer = answer
        keys = [DHTID.from_bytes(key) for key in _KEYS]
        asked: object = self.loop.run_until_complete(
            self._settled(self._records._node.protocol.call_find(_BOB, keys))
        )
        return asked

    async def _settled(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
        finally:
            for _ in range(4):  # the tasks that hivemind starts
                await asyncio.sleep(0)

    def _grow_older(self) -> None:
        self._age += 1
        # Nobody is turned away for asking too often: his allowance is full again each time.
        self._clock.advance(_FULL_AGAIN_SECONDS)
        self._clock.jump(-_FULL_AGAIN_SECONDS)
        if self._age % _RENEW_AFTER == 0:
            self.loop.run_until_complete(self._records.close())
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self._start()


def judged_values(folder: Path) -> Target:  # noqa: ARG001
    """Values that others store: a verdict on any bytes, and never a good one on changed ones."""
    record = sealed_records()[0]
    key = records.keys_of(WIRE_RECORDS[0])[0]
    place, expires_at = place_of(key, 0), WIRE_RECORDS[0].expires_at
    good = msgspec.msgpack.encode(record)

    def run(data: bytes) -> None:
        verdict = Judge(1).judge(place, ALICE.peer_id, data, expires_at)
        assert verdict is not Verdict.GENUINE or msgspec.msgpack.decode(data) == record

    return Target(run, (), (good,), "msgpack", (record, bytes([0xC4])))


def _dht_server(name: str, seeds: Callable[[], tuple[bytes, ...]]) -> Maker:
    def make(folder: Path) -> Target:  # noqa: ARG001
        node = _Node()

        def run(data: bytes) -> None:
            answer = node.serve(name, data)
            assert len(answer) <= 256 * 1024

        allowed = (DslmError, P2PDaemonError, P2PHandlerError)
        return Target(run, allowed, seeds(), "protobuf")

    return make


def dht_client(folder: Path) -> Target:  # noqa: ARG001
    """Answers to a question that our own node asked: it gets something sound or nothing."""
    node = _Node()

    def run(data: bytes) -> None:
        found = node.ask(data)
        if found is None:
            raise ProtocolError("hivemind takes every error for no answer")
        assert isinstance(found, dict)
        assert len(found) == len(_KEYS)

    return Target(run, (ProtocolError,), _find_responses(), "protobuf")


def _control(framed: bool) -> Maker:
    def make(folder: Path) -> Target:  # noqa: ARG001
        info = p2pd_pb2.StreamInfo(peer=_BOB.to_bytes(), addr=b"x", proto="/dslm/ask/1")
        body: bytes = info.SerializeToString()

        def run(data: bytes) -> None:
            pipe = Pipe()
            _feed(pipe, varint(len(data)) + data if framed else data)
            header: Any = run_to_end(receive_header(pipe))
            parse_peer_id(header.peer.to_base58())

        allowed = (P2PDaemonError, DecodeError, EOFError, OSError, ProtocolError)
        seed = body if framed else varint(len(body)) + body
        return Target(run, allowed, (seed,), "protobuf" if framed else "raw")

    return make


def _feed(pipe: Pipe, data: bytes) -> None:
    for at in range(0, len(data), 65_536):
        piece = data[at : at + 65_536]
        pipe.get_buffer(len(piece))[: len(piece)] = piece
        pipe.buffer_updated(len(piece))
    pipe.eof_received()


_TARGET_ADDRESSES = (
    f"/ip4/192.0.2.7/tcp/7779/p2p/{BOB.peer_id}",
    f"/ip6/2001:db8::1/tcp/1/p2p/{BOB.peer_id}",
    f"/dns4/peer.example.org/tcp/443/p2p/{BOB.peer_id}",
    f"/ip4/192.0.2.7/tcp/9/p2p/{ALICE.peer_id}/p2p-circuit/p2p/{BOB.peer_id}",
    "/ip4/0.0.0.0/tcp/0",
)
_ADDRESS_WORDS = (
    "/ip4 /ip6 /dns /dns6 /tcp /udp /quic /p2p /p2p-circuit /unix /ws /onion3 /ip6zone /http /sni "
    "/certhash /garlic64 /memory /tls /webrtc 256.0.0.1 ::ffff:1.2.3.4 %eth0 65536 99999 -1 ²"
)


def _addresses(parse_text: Callable[[str], object]) -> Maker:
    def make(folder: Path) -> Target:  # noqa: ARG001
        def run(data: bytes) -> None:
            parse_text(data.decode("utf-8", "surrogateescape"))

        seeds = tuple(address.encode() for address in _TARGET_ADDRESSES)
        words = tuple(word.encode() for word in _ADDRESS_WORDS.split())
        return Target(run, (UserError,), seeds, "text", words, 400)

    return make


MAKERS: Mapping[str, Maker] = {
    "guard_parse": guard_parse,
    "guard_store": guard_store,
    "guard_find_response": guard_find_response,
    "guard_dictionary": guard_dictionary,
    "guard_dictionary_raw": guard_dictionary_raw,
    "judged_values": judged_values,
    "dht_ping": _dht_server(
        "rpc_ping",
        lambda: (dht_pb2.PingRequest(peer=_BOB_INFO, validate=True).SerializeToString(), b""),
    ),
    "dht_store": _dht_server("rpc_store", _store_requests),
    "dht_find": _dht_server("rpc_find", _find_requests),
    "dht_client": dht_client,
    "control_headers": _control(framed=False),
    "control_bodies": _control(framed=True),
    "dial_addresses": _addresses(parse_address),
    "listen_addresses": _addresses(parse_listen),
}
