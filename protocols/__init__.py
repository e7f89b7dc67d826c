"""What two dslm peers must agree on: ids, messages, records, signatures, limits and ports.

Knows bytes and values; knows nothing of torch, HTTP, files or policy.
"""
