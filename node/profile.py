"""What this node says about itself to other peers: records to announce, replies to `info`.

Knows the facts and the live load; must not know how they are sent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from node.announcer import Offer
from node.services.ask import AskService
from protocols import limits, versions
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.messages.info import InfoReply, Load
from protocols.ports import Clock, Transport
from protocols.records import CapabilityCard, NodeRecord


@dataclass(frozen=True, slots=True)
class Profile:
    """One node's, in one swarm. `announced` gives the addresses to tell others.

    `cards` is what there is to offer at the moment; peer and swarm are filled in.
    """

    name: str
    swarm: SwarmId
    cards: Sequence[CapabilityCard]
    announced: Callable[[], tuple[str, ...]]
    transport: Transport
    service: AskService
    clock: Clock

    @property
    def peer(self) -> PeerId:
        """Who we are."""
        return self.transport.peer_id

    @property
    def specialists(self) -> tuple[SpecialistId, ...]:
        """What we host and can answer with."""
        return tuple(SpecialistId(card.specialist) for card in self._living())

    def offer(self) -> Offer:
        """What to announce now."""
        node = NodeRecord(
            peer=self.peer,
            swarm=self.swarm,
            sequence=0,
            expires_at=0.0,
            addresses=self.announced()[: limits.ADDRESSES_MAX],
            software=versions.SOFTWARE,
            protocols=versions.ALL,
            specialists=self.specialists,
            name=self.name,
        )
        return Offer(node, self._living())

    def _living(self) -> tuple[CapabilityCard, ...]:
        """A model that broke is not offered any more."""
        return tuple(
            replace(card, swarm=self.swarm, peer=self.peer)
            for card in self.cards
            if self.service.is_healthy(SpecialistId(card.specialist))
        )

    def info(self, nonce: int) -> InfoReply:
        """The reply to an info request."""
        admissions = [self.service.admission(name) for name in self.specialists]
        return InfoReply(
            nonce=nonce,
            software=versions.SOFTWARE,
            swarm=self.swarm,
            protocols=versions.ALL,
            specialists=self.specialists,
            load=Load(
                running=sum(one.running for one in admissions),
                waiting=sum(one.waiting for one in admissions),
                slots=sum(one.slots for one in admissions),
                waiting_slots=sum(one.waiting_slots for one in admissions),
            ),
            clock=self.clock.now(),
            draining=any(one.draining for one in admissions),
            name=self.name,
        )
