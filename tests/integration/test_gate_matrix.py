"""Every handler of a real presence x every way to have no place, byte for byte over libp2p.

Handlers are those that the transport and the record store of a running presence have registered;
one without a line in the table of roles fails.
"""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from hivemind.p2p import PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PHandlerError
from hivemind.proto import dht_pb2

from node.config import NodeConfig
from node.footing import Ground, Place
from node.paths import Paths
from node.presence import Presence, take_part
from node.services.ask import AskService
from node.swarms.folder import SwarmFolder
from protocols import access, versions
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.guard import node_id_of
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.adapters.libp2p.peer_routing import ROUTING_PROTOCOL
from protocols.codec import FrameDecoder, encode
from protocols.errors import DslmError
from protocols.ids import PeerId
from protocols.messages.enrol import EnrolMessage, EnrolRefused, EnrolRequest
from protocols.messages.hello import Hello, HelloMessage, Rejected
from protocols.signing import Identity
from tests.simulation.intruders import CASES, ISSUER, MEMBER, REVOKED, SAMPLES, shown
from tests.simulation.members import Owner, credential, identity_of

pytestmark = pytest.mark.integration

ANY_PORT = ("/ip4/127.0.0.1/tcp/0",)
ANSWERED_TO_ALL = {ROUTING_PROTOCOL}
"""p2pd's own question who is where: strangers hear of the node itself, whose address they have."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@dataclass(frozen=True, slots=True)
class House:
    """A swarm with one real presence, and the folder in which peers may be made."""

    owner: Owner
    host: Presence
    folder: Path

    @property
    def address(self) -> str:
        return self.host.network.transport.addresses()[0]

    def handlers(self) -> set[str]:
        """What the host answers to at all."""
        transport, records = self.host.network.transport, self.host.network.records
        return {*transport._inbound.handlers, *records._guard._handlers}


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    owner, clock = Owner(), SystemClock()
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(presence(folder, owner, "host"))
        host.papers.book.offer_revocations(owner.revoke(REVOKED.peer_id, now=clock.now()))
        yield House(owner, host, folder)


@asynccontextmanager
async def presence(folder: Path, owner: Owner, name: str, *friends: str) -> AsyncIterator[Presence]:
    """A member with everything that a node serves in a swarm."""
    identity, clock = MEMBER if name == "member" else identity_of(name), SystemClock()
    root = folder / name
    config = NodeConfig(Paths(root / "config.toml", root / "data", root / "state", root / "models"))
    papers = SwarmFolder.create(root / "swarms", owner.charter, identity)
    papers.save_credential(credential(owner, ISSUER, identity.peer_id, clock.now()))
    papers.save_delegations((owner.delegate(ISSUER.peer_id, clock.now()),))
    ground = Ground(config, clock, Random(1), None, AskService({}, clock), ())
    async with take_part(ground, Place(papers, ANY_PORT, friends)) as made:
        yield made


@asynccontextmanager
async def intruder(house: House, identity: Identity) -> AsyncIterator[Libp2pNetwork]:
    """A peer of the real network without a gate, connected to the host."""
    config = Libp2pConfig(identity, ANY_PORT, house.folder)
    async with Libp2pNetwork(config, SystemClock()) as network:
        await network.transport.connect(house.address)
        yield network


async def said(network: Libp2pNetwork, peer: PeerId, protocol: str, sent: bytes) -> bytes:
    """All the bytes that come back for `sent` on a stream of `protocol`."""
    received = b""
    with suppress(DslmError):
        stream = await network.transport.open_stream(peer, protocol)
        try:
            await stream.send(sent)
            while data := await stream.receive():
                received += data
                if protocol not in access.OPEN:
                    return received
                await stream.close()
        finally:
            stream.abort()
    return received


async def called(network: Libp2pNetwork, peer: PeerId, name: str) -> bytes:
    """The raw answer of the record store's handler `name` to a good request."""
    me = PeerID.from_base58(network.transport.peer_id)
    info = dht_pb2.NodeInfo(node_id=node_id_of(me))
    requests = {
        access.DHT_PING: dht_pb2.PingRequest(peer=info, validate=False),
        access.DHT_FIND: dht_pb2.FindRequest(keys=[bytes(20)], peer=info),
        access.DHT_STORE: dht_pb2.StoreRequest(
            keys=[bytes(20)],
            subkeys=[b""],
            values=[b"v"],
            expiration_time=[SystemClock().now() + 60],
            in_cache=[False],
            peer=info,
        ),
    }
    control = network.records._guard._control
    assert control is not None
    remote = PeerID.from_base58(peer)
    return bytes(await control.call_unary_handler(remote, name, requests[name].SerializeToString()))


async def test_nobody_without_a_place_gets_a_byte_from_any_handler(folder: Path) -> None:
    async with house(folder) as home:
        host = home.host.me
        handlers = home.handlers()
        assert handlers - ANSWERED_TO_ALL <= set(access.TABLE) | access.OPEN
        assert handlers >= set(access.TABLE) | access.OPEN, "a line without a handler"
        for case in CASES:
            identity = REVOKED if case == "revoked" else identity_of(f"intruder, {case}")
            guest = shown(case, home.owner, SystemClock().now(), identity.peer_id)
            async with intruder(home, identity) as network:
                hello = encode(Hello(home.owner.charter.swarm, 0, guest.credential))
                answer = await said(network, host, versions.HELLO, hello)
                decoder: FrameDecoder[HelloMessage] = FrameDecoder(HelloMessage)
                (frame,) = decoder.feed(answer)
                assert isinstance(frame.message, Rejected), case
                assert len(answer) < 100
                for protocol in sorted(handlers - access.OPEN - ANSWERED_TO_ALL):
                    if protocol in SAMPLES:
                        sample = encode(SAMPLES[protocol])
                        assert await said(network, host, protocol, sample) == b"", (case, protocol)
                        continue
                    with pytest.raises(P2PHandlerError, match="NotAdmitted") as refused:
                        await called(network, host, protocol)
                    assert len(str(refused.value)) < 200
            assert guest.peer not in home.host.gate.peers()


async def test_the_desk_gives_a_stranger_a_short_no(folder: Path) -> None:
    async with house(folder) as home, intruder(home, identity_of("stranger")) as network:
        request = EnrolRequest(home.owner.charter.swarm, network.transport.peer_id, bytes(64))
        answer = await said(network, home.host.me, versions.ENROL, encode(request))
        decoder: FrameDecoder[EnrolMessage] = FrameDecoder(EnrolMessage)
        (frame,) = decoder.feed(answer)
        assert isinstance(frame.message, EnrolRefused)
        assert len(answer) < 100


async def test_a_member_is_answered_by_every_handler(folder: Path) -> None:
    async with house(folder) as home, presence(folder, home.owner, "member", home.address) as guest:
        host = home.host.me
        await guest.greet(host)
        for protocol in sorted(home.handlers() - access.OPEN - ANSWERED_TO_ALL):
            if protocol in SAMPLES:
                assert await said(guest.network, host, protocol, encode(SAMPLES[protocol]))
            else:
                assert await called(guest.network, host, protocol)
