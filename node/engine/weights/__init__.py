"""How weights are held and multiplied: packings, our quantiser, kernels, and who gets which.

Knows matrices; must not know models' layers, requests or files.
"""
