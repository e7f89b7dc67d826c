"""What a gate is made of: policies of who may come in, what is remembered of failures.

Knows decisions and memories; must not read or send anything: the gate (`protocols.gate`) does.
"""
