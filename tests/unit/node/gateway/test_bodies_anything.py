"""Whatever a client sends as a body: a checked value or a `BadRequest`, and nothing else."""

import contextlib

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from node.gateway.admin import PingBody
from node.gateway.bodies import ChatBody, CompletionBody, decode_body
from node.gateway.errors import BadRequest
from node.gateway.joins import JoinBody
from node.gateway.swarms import DocumentsBody, InviteBody, LoadBody
from tests.effort import examples

FIELDS = (
    "model messages prompt stream stream_options max_tokens max_completion_tokens temperature "
    "top_p top_k seed stop dslm n tools tool_choice response_format logprobs "
    "logit_bias modalities echo target roles uses lifetime name documents peer count"
)

SHAPES: tuple[type[msgspec.Struct], ...] = (
    ChatBody,
    CompletionBody,
    JoinBody,
    PingBody,
    InviteBody,
    LoadBody,
    DocumentsBody,
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
names = st.sampled_from(
    [*FIELDS.split(), "role", "content", "type", "text", "route", "node", "swarm"]
)
values = st.recursive(
    scalars | st.sampled_from(["user", "assistant", "auto", "text", "local"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
bodies = st.fixed_dictionaries(
    {"model": st.just("auto") | values, "messages": st.just([{"role": "user", "content": "x"}])},
    optional=dict.fromkeys(FIELDS.split()[2:], values),
)


@settings(max_examples=examples(2_000), deadline=None)
@given(st.binary(max_size=200))
def test_bytes(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        decode_body(data, ChatBody)


@settings(max_examples=examples(300), deadline=None)
@given(bodies | values)
def test_json(value: object) -> None:
    data = msgspec.json.encode(value)
    for shape in SHAPES:
        try:
            decode_body(data, shape)
        except BadRequest as error:
            assert str(error)  # noqa: PT017  (any other error fails the test by itself)
