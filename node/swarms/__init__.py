"""This node's part in swarms: their folders, the owner's key, enrolment, reachability, memory.

Knows one swarm at a time, each with an identity and a folder of its own; must not know adapters,
nor how the parts are wired (`node.presence`).
"""
