"""A stock py-libp2p host in an open swarm: `stock_libp2p_asker.py ADDRESS PROMPT SWARM`.

Uses nothing of dslm but the message types, the codec and the proof of work with which a stranger
introduces itself; prints the answer's ids as JSON.
"""

import json
import secrets
import sys

import multiaddr  # type: ignore[import-not-found,unused-ignore]
import trio  # type: ignore[import-not-found,unused-ignore]
from libp2p import new_host  # type: ignore[import-not-found,unused-ignore]
from libp2p.abc import IHost  # type: ignore[import-not-found,unused-ignore]
from libp2p.crypto.ed25519 import (  # type: ignore[import-not-found,unused-ignore]
    create_new_key_pair,
)
from libp2p.custom_types import (  # type: ignore[import-not-found,unused-ignore]
    TProtocol,
)
from libp2p.peer.id import ID  # type: ignore[import-not-found,unused-ignore]
from libp2p.peer.peerinfo import (  # type: ignore[import-not-found,unused-ignore]
    info_from_p2p_addr,
)

from protocols.codec import Frame, FrameDecoder, encode
from protocols.ids import parse_peer_id
from protocols.membership.charter import open_charter
from protocols.membership.proof import make_proof
from protocols.messages.ask import (
    Accepted,
    Ask,
    Chat,
    ChatMessage,
    Finished,
    Sampling,
    ServerMessage,
    Tokens,
)
from protocols.messages.hello import Hello, HelloMessage

TOKENS = 16


async def say_hello(host: IHost, peer: ID, swarm: str) -> None:
    """Be let in, or end with an error."""
    charter = open_charter(swarm)
    proof = make_proof(charter.swarm, parse_peer_id(str(host.get_id())))
    stream = await host.new_stream(peer, [TProtocol("/dslm/hello/1")])
    await stream.write(encode(Hello(charter.swarm, proof=proof)))
    decoder: FrameDecoder[HelloMessage] = FrameDecoder(HelloMessage)
    frames: list[Frame[HelloMessage]] = []
    while not frames:
        frames = decoder.feed(await stream.read(65_536))
    if not isinstance(frames[0].message, Hello):
        raise SystemExit(f"turned away: {frames[0].message}")
    await stream.close()


async def main(address: str, prompt: str, swarm: str) -> None:
    """Ask once."""
    host = new_host(key_pair=create_new_key_pair(secrets.token_bytes(32)), muxer_preference="YAMUX")
    async with host.run(listen_addrs=[]):
        info = info_from_p2p_addr(multiaddr.Multiaddr(address))
        await host.connect(info)
        await say_hello(host, info.peer_id, swarm)
        stream = await host.new_stream(info.peer_id, [TProtocol("/dslm/ask/1")])
        chat = Chat((ChatMessage("user", prompt),))
        ask = Ask("stock-1", 0, "smollm2", chat, Sampling(), max_tokens=TOKENS, budget=60.0)
        await stream.write(encode(ask))
        decoder: FrameDecoder[ServerMessage] = FrameDecoder(ServerMessage)
        ids: list[int] = []
        text = model = ""
        while True:
            for frame in decoder.feed(await stream.read(65_536)):
                match frame.message:
                    case Accepted(model_digest=model_digest):
                        model = model_digest
                    case Tokens():
                        ids += frame.message.ids
                        text += frame.message.text
                    case Finished(text=rest):
                        answer = {"ids": ids, "text": text + rest, "model": model}
                        sys.stdout.write(json.dumps(answer) + "\n")
                        await stream.close()
                        return
                    case other:
                        sys.stderr.write(f"{other}\n")


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
