"""The versions that peers name to each other: protocol ids, signing domains, the software.

Knows strings only. An unknown version is refused, an unknown field is ignored.
"""

SOFTWARE = "0.1.0"

ASK = "/dslm/ask/1"
INFO = "/dslm/info/1"

ALL = (ASK, INFO)

SIGNING_DOMAIN = b"dslm/v1/"
