"""What a gate is made of: policies of who may come in, what is remembered of failures, pace.

Nothing here reads or sends; the gate (`protocols.gate`) does.
"""
