"""One file per protocol: the messages that cross the wire, as tagged unions.

Knows shapes and bounds of messages; must not know the order they come in (`protocols.ask`).
"""
