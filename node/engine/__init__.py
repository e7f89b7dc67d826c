"""The engine: turns token ids into token ids. Schedule, run, sample; one file per noun.

Knows models and batches; must not know peers, text or HTTP.
"""
