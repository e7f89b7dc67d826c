"""A stock py-libp2p host that asks a dslm peer: `python stock_libp2p_asker.py ADDRESS PROMPT`.

Uses nothing of dslm but the message types and the codec; prints the answer's ids as JSON.
"""

import json
import secrets
import sys

import multiaddr  # type: ignore[import-not-found,unused-ignore]
import trio  # type: ignore[import-not-found,unused-ignore]
from libp2p import new_host  # type: ignore[import-not-found,unused-ignore]
from libp2p.crypto.ed25519 import (  # type: ignore[import-not-found,unused-ignore]
    create_new_key_pair,
)
from libp2p.custom_types import (  # type: ignore[import-not-found,unused-ignore]
    TProtocol,
)
from libp2p.peer.peerinfo import (  # type: ignore[import-not-found,unused-ignore]
    info_from_p2p_addr,
)

from protocols.codec import FrameDecoder, encode
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

TOKENS = 16


async def main(address: str, prompt: str) -> None:
    """Ask once."""
    host = new_host(key_pair=create_new_key_pair(secrets.token_bytes(32)), muxer_preference="YAMUX")
    async with host.run(listen_addrs=[]):
        info = info_from_p2p_addr(multiaddr.Multiaddr(address))
        await host.connect(info)
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
