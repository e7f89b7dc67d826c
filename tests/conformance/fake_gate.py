"""A gate for tests: a set of friends, a word for hello, and defects on demand."""

from protocols import access, allowances, versions
from protocols.errors import NotAdmitted
from protocols.ids import PeerId
from protocols.ports import Allowance, Stream, Transport


class FakeGate:
    """Admits whoever said the word to it; says the word to whomever it greets."""

    def __init__(self, word: bytes = b"open sesame", allowance: Allowance = allowances.KNOWN):
        self.word = word
        self.transport: Transport | None = None
        self.inside: set[PeerId] = set()
        self.greeted: set[PeerId] = set()
        self.asked: list[tuple[str, PeerId, str]] = []
        self.allowed = allowance
        self.is_broken = False

    async def attach(self, transport: Transport) -> None:
        self.transport = transport
        await transport.serve(versions.HELLO, self._answer)

    def admits(self, peer: PeerId, protocol: str) -> bool:
        self.asked.append(("admits", peer, protocol))
        if self.is_broken:
            raise LookupError("a defect of the gate")
        return peer in self.inside

    def allowance(self, peer: PeerId) -> Allowance:
        if self.is_broken:
            raise LookupError("a defect of the gate")
        return self.allowed if peer in self.inside else allowances.NOBODY

    async def greet(self, peer: PeerId, protocol: str) -> None:
        self.asked.append(("greet", peer, protocol))
        if self.is_broken:
            raise LookupError("a defect of the gate")
        assert self.transport is not None, "asked before it was attached"
        assert protocol not in access.OPEN
        if peer in self.greeted:
            return
        stream = await self.transport.open_stream(peer, versions.HELLO)
        await stream.send(self.word)
        if await stream.receive() != b"welcome":
            raise NotAdmitted("not the right word")
        await stream.close()
        self.greeted.add(peer)

    def forget(self, peer: PeerId) -> None:
        self.asked.append(("forget", peer, ""))
        self.greeted.discard(peer)

    def asked_for(self, question: str) -> int:
        return sum(asked == question for asked, _, _ in self.asked)

    async def _answer(self, stream: Stream) -> None:
        if await stream.receive() == self.word:
            self.inside.add(stream.peer)
            await stream.send(b"welcome")
