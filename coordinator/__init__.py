"""What makes a swarm act as one with nobody in charge: directory, routing and dispatch.

Knows the protocols and their ports; knows nothing of torch, sockets, HTTP or files.
"""
