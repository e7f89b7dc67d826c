"""Upper bounds for everything that arrives from the network, in one place.

Knows numbers only; each is enforced by the module that reads the bytes in question.
"""

FRAME_PREFIX_BYTES = 8
HEADER_BYTES_MAX = 512 * 1024
"""One message's msgpack header."""
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
"""Raw bytes (token ids, tensors) after a header."""

PROMPT_BYTES_MAX = 256 * 1024
CHAT_MESSAGES_MAX = 512
TOKENS_MAX = 65_536
"""Token ids that one answer may have."""
TOKENS_PER_MESSAGE_MAX = 256
STOP_STRINGS_MAX = 4
STOP_STRING_BYTES_MAX = 256
DEADLINE_SECONDS_MAX = 3_600.0
TEXT_BYTES_MAX = 1_024
"""A reason, a phase, a version: any short text a peer sends for people."""

RECORD_BYTES_MAX = 8 * 1024
RECORD_LIFETIME_SECONDS_MAX = 3_600.0
CLOCK_SKEW_SECONDS_MAX = 60.0
ADDRESSES_MAX = 16
ADDRESS_BYTES_MAX = 256
DOMAINS_MAX = 8
SPECIALISTS_MAX = 64
PROTOTYPES_MAX = 8
PROTOTYPE_BYTES_MAX = 1_024
DESCRIPTION_BYTES_MAX = 600

TENSOR_RANK_MAX = 4
