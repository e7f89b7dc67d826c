"""The daemon and everything that touches the machine: engine, services, gateway, CLI.

Knows both other packages; wired together in `node.app` and nowhere else.
"""
