"""The network over go-libp2p: hivemind's `P2P` and `DHTNode`, kept on a short lead.

Knows hivemind (importing a module of this package takes seconds); no other package may.
`network.Libp2pNetwork` is the way in.
"""
