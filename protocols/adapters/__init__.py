"""Implementations of the ports; only `node/app.py`, tests and benchmarks import them.

Each package knows one outside world; none of them knows another.
"""
