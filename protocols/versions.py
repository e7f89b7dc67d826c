"""The versions that peers name to each other: protocol ids, signing domains, the software.

Knows strings only. An unknown version is refused, an unknown field is ignored.
"""

SOFTWARE = "0.1.0"

ASK = "/dslm/ask/1"
INFO = "/dslm/info/1"

HELLO = "/dslm/hello/1"
"""Mutual admission on first contact."""
ENROL = "/dslm/enrol/1"
"""Certificates for invited strangers, and their renewal."""
SWARM = "/dslm/swarm/1"
"""Members tell each other who may issue and who was revoked."""
REACH = "/dslm/reach/1"
"""Dial-back: can I be reached at these addresses?"""

MEMORY = "/dslm/memory/1"
"""Keys and values of a prompt that several peers work on in turn."""

ALL = (ASK, INFO, HELLO, ENROL, SWARM, REACH, MEMORY)

SIGNING_DOMAIN = b"dslm/v1/"
