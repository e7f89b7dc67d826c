"""Low-rank adapters on one model: many in one batch, each from the token on where it begins.

Knows tensors and rows of a batch; must not know files, requests or the cache.
"""
