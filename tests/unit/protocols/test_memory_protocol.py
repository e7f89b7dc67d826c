"""The memory protocol's state machines: what was wanted comes, in order, whole, or not at all."""

from dataclasses import replace as data_replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from protocols.codec import Frame
from protocols.errors import ProtocolError
from protocols.limits import MEMORY_FRAME_BYTES, PAYLOAD_BYTES_MAX
from protocols.memory import (
    ClientMemory,
    ServerMemory,
    common_pages,
    page_bytes,
    page_names,
    pages_per_frame,
)
from protocols.messages.memory import Done, Encoding, Found, MemoryReply, PageLayout, Pages, Want
from tests.effort import examples

LAYOUT = PageLayout("base", "fp32", 2, 3, 8, 16)
TOKENS = tuple(range(100))
NAMES = page_names(LAYOUT, "ticket", TOKENS, 6)
WANT = Want("ticket", LAYOUT, "i8", NAMES, 1)
SIZE = page_bytes(LAYOUT, "i8")


def pages(first: int, count: int, **changes: object) -> Frame[MemoryReply]:
    message = Pages(first, count, NAMES[first + count - 1])
    return Frame(replace(message, **changes), bytes(count * SIZE))


def test_a_page_is_as_large_as_its_vectors_and_scales() -> None:
    vectors = 2 * 2 * 3 * 16
    assert page_bytes(LAYOUT, "f32") == vectors * 32
    assert page_bytes(LAYOUT, "bf16") == vectors * 16
    assert page_bytes(LAYOUT, "i8") == vectors * (8 + 2)


@pytest.mark.parametrize("encoding", ["f32", "bf16", "i8"])
def test_a_frame_holds_some_pages_or_one_large_one_or_none(encoding: Encoding) -> None:
    for layers in (1, 30, 100, 10_000):
        layout = replace(LAYOUT, layers=layers, dimension=128)
        count, size = pages_per_frame(layout, encoding), page_bytes(layout, encoding)
        if size > PAYLOAD_BYTES_MAX:
            assert count == 0
        else:
            assert count == 1 or count * size <= MEMORY_FRAME_BYTES
            assert (count + 1) * size > MEMORY_FRAME_BYTES


def test_what_was_found_comes_from_the_end_to_the_beginning() -> None:
    client = ClientMemory(WANT)
    frames: list[Frame[MemoryReply]] = [Frame(Found(5)), pages(4, 1), pages(2, 2), pages(1, 1)]
    frames.append(Frame(Done()))
    for frame in frames:
        assert not client.ended
        assert client.receive(frame) is frame
    assert client.ended


WRONG: dict[str, list[Frame[MemoryReply]]] = {
    "pages before anything was found": [pages(5, 1)],
    "an end before anything was found": [Frame(Done())],
    "found twice": [Frame(Found(3)), Frame(Found(3))],
    "more than were named": [Frame(Found(7))],
    "a gap": [Frame(Found(6)), pages(3, 1)],
    "a page again": [Frame(Found(6)), pages(5, 1), pages(5, 1)],
    "a page that was not wanted": [Frame(Found(6)), pages(0, 6)],
    "another name": [Frame(Found(6)), pages(5, 1, name=NAMES[4])],
    "bytes with an end": [Frame(Found(6)), Frame(Done(), b"x")],
    "too few bytes": [Frame(Found(6)), data_replace(pages(5, 1), payload=bytes(SIZE - 1))],
    "too many bytes": [Frame(Found(6)), data_replace(pages(5, 1), payload=bytes(2 * SIZE))],
    "pages after the end": [Frame(Found(6)), Frame(Done()), pages(5, 1)],
}


@pytest.mark.parametrize("case", WRONG)
def test_anything_else_is_refused(case: str) -> None:
    client = ClientMemory(WANT)
    *good, bad = WRONG[case]
    for frame in good:
        client.receive(frame)
    with pytest.raises(ProtocolError):
        client.receive(bad)


def test_a_server_hears_one_request_that_wants_something() -> None:
    server = ServerMemory()
    assert server.receive(WANT) is WANT
    with pytest.raises(ProtocolError):
        server.receive(WANT)
    with pytest.raises(ProtocolError):
        ServerMemory().receive(replace(WANT, first=6))
    with pytest.raises(ProtocolError):
        ServerMemory().receive(replace(WANT, layout=replace(LAYOUT, layers=65_536, dimension=999)))


@settings(max_examples=examples(400), deadline=None)
@given(
    cut=st.integers(0, 99),
    ticket=st.sampled_from(["ticket", "other"]),
    layout=st.sampled_from([LAYOUT, replace(LAYOUT, base="b"), replace(LAYOUT, layers=3)]),
)
def test_names_agree_as_far_as_tokens_ticket_and_layout_do(
    cut: int, ticket: str, layout: PageLayout
) -> None:
    other = page_names(layout, ticket, (*TOKENS[:cut], 7_777, *TOKENS[cut + 1 :]), 6)
    is_same = ticket == "ticket" and layout == LAYOUT
    assert common_pages(NAMES, other) == (min(cut // 16, 6) if is_same else 0)
    assert not set(NAMES[common_pages(NAMES, other) :]) & set(other)


def test_pages_that_are_not_full_have_no_names() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        page_names(LAYOUT, "t", TOKENS[:31], 2)
    assert len(page_names(LAYOUT, "t", TOKENS[:32], 2)) == 2
