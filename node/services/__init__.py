"""The serving end of each protocol: what this node does when a peer asks.

Knows messages and hosted models behind a port; must not know torch or the network's make.
"""
