"""Guessing tokens before the model computes them, so that one step can settle several.

Knows tokens, how often guesses were right and what steps cost; must not know scheduling.
"""
