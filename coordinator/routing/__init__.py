"""Which specialist answers: by name, or the card that lies nearest to the prompt.

Knows cards, scores and the encoder port; must not know how a peer is asked.
"""
