"""Training of adapters: a frozen base, a frozen A from a seed, and a B for each specialist.

Knows tensors, examples and files of examples; must not know peers, requests or the engine's loop.
"""
