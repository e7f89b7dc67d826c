"""The fast path on a CPU: a whole step of the decoder in one call of compiled code.

Knows the engine's model, batch and weights; must not know requests. Eager torch computes the same
and is what this is measured against.
"""
