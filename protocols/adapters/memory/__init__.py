"""A whole network in one process, with delay, loss, partition, freezing and death by seed.

Knows the ports that it implements; must not know who uses them or what is sent.
"""

from protocols.adapters.memory.conditions import Conditions
from protocols.adapters.memory.network import MemoryNetwork, MemoryPeer

__all__ = ["Conditions", "MemoryNetwork", "MemoryPeer"]
