"""The families of models that `config.json` can describe, one module each.

Knows transformers' settings; must not know files or how a model is computed.
"""
