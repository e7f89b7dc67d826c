"""Carrying out one request over several replicas, so that the client sees one unbroken answer.

Knows measurements, candidates and the order of events; must not know cards' meaning or HTTP. All
decisions are in `run` (pure), all waiting is in `dispatcher`.
"""
