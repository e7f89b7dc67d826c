"""What is encoded decodes to the same, in any pieces; what is signed verifies, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import limits
from protocols.codec import Frame, FrameDecoder, encode
from protocols.errors import RecordError
from protocols.ids import peer_id_from_public_key, public_key_of
from protocols.messages.ask import (
    Accepted,
    Ask,
    Cancel,
    Chat,
    ChatMessage,
    ClientMessage,
    Finished,
    Grammar,
    JsonSchema,
    Likelihood,
    Likely,
    LogitBias,
    Progress,
    Refusal,
    RegularExpression,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
    ToolCall,
)
from protocols.records import IndexRecord, open_sealed, seal
from protocols.signing import Identity, verify
from tests.effort import examples

text = st.text(max_size=40)
counts = st.integers(0, limits.TOKENS_MAX)
ids = st.lists(st.integers(0, 2**31 - 1), max_size=20).map(tuple)
samplings = st.builds(
    Sampling,
    st.floats(0, 2),
    st.integers(0, 1_000_000),
    st.floats(0, 1, exclude_min=True),
    st.integers(0, 2**63 - 1),
    st.floats(0, 1),
    st.floats(0.01, 100),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.lists(st.builds(LogitBias, st.integers(0, 9), st.floats(-100, 100)), max_size=3).map(tuple),
    st.none() | st.integers(0, 20),
)
likelihoods = st.builds(
    Likelihood,
    st.floats(-9_999, 0),
    st.binary(max_size=9),
    st.lists(
        st.builds(Likely, st.integers(0, 9), st.floats(-9_999, 0), st.binary(max_size=9)),
        max_size=3,
    ).map(tuple),
)
calls = st.lists(st.builds(ToolCall, text, text, text), max_size=2).map(tuple)
some = st.text(min_size=1, max_size=40)
constraints = (
    st.builds(JsonSchema, some) | st.builds(Grammar, some) | st.builds(RegularExpression, some)
)
roles = st.sampled_from(["system", "user", "assistant", "tool"])
prompts = st.builds(Text, text) | st.builds(
    Chat,
    st.lists(st.builds(ChatMessage, roles, text, calls, text, text), min_size=1, max_size=3).map(
        tuple
    ),
    text,
)
asks = st.builds(
    Ask,
    request_id=st.text(min_size=1, max_size=64),
    attempt=st.integers(0, 1_000),
    specialist=st.text(max_size=96),
    prompt=prompts,
    sampling=samplings,
    max_tokens=counts,
    budget=st.floats(0, limits.DEADLINE_SECONDS_MAX),
    stop=st.lists(st.text(min_size=1, max_size=9), max_size=4).map(tuple),
    delivered=ids,
    constraint=st.none() | constraints,
    forced=ids,
    on_base=st.booleans(),
)
client_messages = asks | st.just(Cancel())
server_messages = st.one_of(
    st.builds(
        Accepted,
        counts,
        counts,
        st.text(max_size=64),
        st.lists(st.text(max_size=9), max_size=3).map(tuple),
    ),
    st.builds(Progress, st.sampled_from(["queued", "prefill"]), counts),
    st.builds(Tokens, counts, ids.filter(bool), text, st.lists(likelihoods, max_size=2).map(tuple)),
    st.builds(Finished, st.sampled_from(["stop", "length"]), text, counts, counts),
    st.builds(Refusal, st.sampled_from(["busy", "not_here", "failed"]), text),
)
cuts = st.lists(st.integers(1, 50), min_size=1, max_size=5)


def _cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
    return pieces


@settings(max_examples=examples(500), deadline=None)
@given(st.lists(st.tuples(client_messages, st.binary(max_size=30)), max_size=4), cuts)
def test_client_messages(sent: list[tuple[ClientMessage, bytes]], sizes: list[int]) -> None:
    decoder: FrameDecoder[ClientMessage] = FrameDecoder(ClientMessage)
    data = b"".join(encode(message, payload) for message, payload in sent)
    got = [frame for piece in _cut(data, sizes) for frame in decoder.feed(piece)]
    assert got == [Frame(message, payload) for message, payload in sent]
    assert decoder.is_between_frames


@settings(max_examples=examples(500), deadline=None)
@given(st.lists(server_messages, max_size=5), cuts)
def test_server_messages(sent: list[ServerMessage], sizes: list[int]) -> None:
    decoder: FrameDecoder[ServerMessage] = FrameDecoder(ServerMessage)
    data = b"".join(encode(message) for message in sent)
    got = [frame.message for piece in _cut(data, sizes) for frame in decoder.feed(piece)]
    assert got == sent


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(min_size=32, max_size=32), text, st.integers(0, 2**63 - 1))
def test_records(seed: bytes, key: str, sequence: int) -> None:
    identity = Identity(seed)
    record = IndexRecord(identity.peer_id, key, sequence, 1.0, ("law",))
    assert open_sealed(seal(record, identity)) == record
    assert Identity.from_libp2p(identity.to_libp2p()).peer_id == identity.peer_id


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=50), st.binary(max_size=50))
def test_signatures(seed: bytes, data: bytes, other: bytes) -> None:
    identity = Identity(seed)
    signature = identity.sign("card", data)
    verify(identity.peer_id, "card", data, signature)
    if other != data:
        with pytest.raises(RecordError):
            verify(identity.peer_id, "card", other, signature)


@given(st.binary(min_size=32, max_size=32))
def test_peer_ids(key: bytes) -> None:
    assert public_key_of(peer_id_from_public_key(key)) == key
