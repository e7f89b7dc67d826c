"""This node's part in swarms: their folders, the owner's key, enrolment, reachability, memory.

Each swarm has an identity of its own and its files in one folder; nothing here imports an adapter.
"""
