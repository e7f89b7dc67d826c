"""The command line: one file per verb, thin clients of the node's HTTP API.

Knows people and terminals; must not import a model runtime or the network library.
"""
