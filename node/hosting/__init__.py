"""Hosting: from files on disk to a model that answers, and the sentence encoder.

Knows file formats, tokenizers and memory; must not know peers or HTTP.
"""
