"""What a node writes about its peers' questions holds nothing of the questions."""

import logging
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace as struct_replace

from node.services.ask import AskService
from node.services.ask_stream import AskStream
from protocols import versions
from protocols.adapters.memory import MemoryNetwork
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.allowances import NEWCOMER, NOBODY
from protocols.channel import Channel
from protocols.codec import encode
from protocols.errors import DslmError
from protocols.messages.ask import (
    Ask,
    Chat,
    ChatMessage,
    Prompt,
    Refusal,
    Sampling,
    ServerMessage,
    Text,
)
from protocols.ports import Allowance, Stream
from protocols.signing import Identity
from tests.unit.node.services.test_ask_service import LetterTokenizer, ScriptedModel

MARKER = "marker-prompt"
ASK = Ask("r1", 0, "tale", Text(MARKER), Sampling(), max_tokens=0, budget=30.0)
CHAT = Chat((ChatMessage("user", MARKER),))


class BrokenTokenizer(LetterTokenizer):
    """Fails with what it was given, as a careless library would."""

    def encode_text(self, text: str) -> tuple[int, ...]:
        raise ValueError(f"cannot tokenise {text!r}")


def answers_to(
    frames: list[bytes], model: ScriptedModel, allowance: Allowance = NEWCOMER
) -> list[ServerMessage]:
    """All that a peer is told that opens a stream for each frame."""
    told: list[ServerMessage] = []

    async def ask(open_stream: Callable[[], Awaitable[Stream]], frame: bytes) -> None:
        stream = await open_stream()
        await stream.send(frame)
        channel: Channel[ServerMessage] = Channel(stream, ServerMessage)
        try:
            while (message := await channel.receive()) is not None:
                told.append(message)
        except DslmError:
            return
        finally:
            await stream.close()

    async def main() -> None:
        async with MemoryNetwork(1, LoopClock()) as network:
            client, server = (network.join(Identity(bytes([n] * 32))) for n in (1, 2))
            service = AskService({model.specialist: model}, LoopClock(), lambda _: allowance)
            await server.transport.serve(versions.ASK, AskStream(service))
            for frame in frames:
                await ask(
                    lambda: client.transport.open_stream(
                        server.peer_id, versions.ASK, server.transport.addresses()
                    ),
                    frame,
                )
            network.defects.clear()

    run_virtual(main(), limit_seconds=600)
    return told


def frames_of(*prompts: Prompt) -> list[bytes]:
    """Good questions, and those that are broken in every way that leaves the prompt in them."""
    good = [encode(struct_replace(ASK, prompt=prompt)) for prompt in prompts]
    whole = good[0]
    return [
        *good,
        encode(struct_replace(ASK, specialist="other")),
        encode(struct_replace(ASK, max_tokens=5_000)),
        encode(struct_replace(ASK, stop=(MARKER,))),
        whole[: -len(MARKER) // 2],
        whole[:8] + whole[8:].replace(b"prompt", b"prOmpt", 1),
        whole.replace(b"text", b"tExt"),
        MARKER.encode() * 9,
        whole + whole,
    ]


@pytest.mark.parametrize("allowance", [NEWCOMER, NOBODY])
def test_no_prompt_is_in_the_log_or_in_a_refusal(
    caplog: pytest.LogCaptureFixture, allowance: Allowance
) -> None:
    caplog.set_level(logging.DEBUG)
    told = answers_to(frames_of(Text(MARKER), CHAT), ScriptedModel(), allowance)
    refusals = [one for one in told if isinstance(one, Refusal)]
    assert len(refusals) >= 4
    assert not any(MARKER in one.message for one in refusals)
    assert "ask" in caplog.text, "something is logged"
    assert MARKER not in caplog.text


def test_a_defect_tells_the_peer_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    model = ScriptedModel(tokenizer=BrokenTokenizer())
    told = answers_to([encode(ASK)], model)
    assert not any(MARKER in str(one) for one in told)
    assert MARKER not in caplog.text
