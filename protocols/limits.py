"""Upper bounds for everything that arrives from the network, in one place.

Knows numbers only; each is enforced by the module that reads the bytes in question.
"""

HEADER_BYTES_MAX = 512 * 1024
"""One message's msgpack header."""
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
"""Raw bytes (token ids, tensors) after a header."""

PROMPT_BYTES_MAX = 256 * 1024
CHAT_MESSAGES_MAX = 512
TOKENS_MAX = 65_536
"""Token ids that one answer may have."""
TOKENS_PER_MESSAGE_MAX = 256
FORCED_TOKENS_MAX = 1_024
"""Token ids of an answer that is given, to hear how likely it is."""
STOP_STRINGS_MAX = 4
STOP_STRING_BYTES_MAX = 256
LOGIT_BIASES_MAX = 1_024
"""Tokens that one request makes likelier or less likely."""
LOGPROBS_MAX = 20
"""Other tokens whose likelihood is told beside the chosen one's."""
TOKEN_BYTES_MAX = 1_024
"""The longest spelling of a token."""
CONSTRAINT_BYTES_MAX = 64 * 1024
"""A JSON schema, a grammar or a regular expression that an answer must follow."""
TOOLS_BYTES_MAX = 64 * 1024
"""All that a conversation says about the tools that may be called."""
TOOLS_MAX = 128
TOOL_CALLS_MAX = 64
"""Calls in one message."""
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
EXEMPLARS_MAX = 10
EXEMPLAR_BYTES_MAX = 400
"""One example of a specialist's prompts, on its card."""
MEASURED_SCORES_MAX = 8
LANGUAGES_MAX = 16
MODALITIES_MAX = 4

CERTIFICATE_SECONDS_MAX = 24 * 3_600.0
DELEGATION_SECONDS_MAX = 90 * 24 * 3_600.0
LAPSE_SECONDS_MAX = 30 * 24 * 3_600.0
"""How long after its end a certificate still proves that its holder may have a new one."""
CREDENTIAL_BYTES_MAX = 2 * 1024
DELEGATIONS_MAX = 32
REVOKED_MAX = 4_096
REVOCATIONS_BYTES_MAX = 384 * 1024
INVITE_BYTES_MAX = 2 * 1024
INVITE_USES_MAX = 1_000

TENSOR_RANK_MAX = 4

MEMORY_PAGES_MAX = 4_096
"""Pages of keys and values that one request names."""
MEMORY_FRAME_BYTES = 1024 * 1024
"""Pages are sent together up to about so many bytes; a single larger one goes alone."""

STREAMS_IN_MAX = 400
"""Inbound streams served at once, and of those from one peer."""
STREAMS_IN_PER_PEER_MAX = 32
STREAMS_IN_RESERVED = 100
"""Of all streams, those kept for peers that have none open yet."""
STREAMS_UNKNOWN_MAX = 256
"""Inbound streams of which we do not know yet whose they are."""
ROUTING_STREAMS_MAX = 128
"""Inbound streams on which daemons ask who is where."""
STREAM_OPENINGS_PER_SECOND = 200.0
STREAM_OPENINGS_BURST = 400.0
"""New streams of all peers together; for one peer its allowance counts."""
STREAM_BYTES_PER_SECOND = 64 * 1024 * 1024.0
STREAM_BYTES_BURST = 256 * 1024 * 1024.0
"""Bytes received from one peer; of all together four times as many."""
STREAM_BYTES_TOTAL_FACTOR = 4
REFUSALS_PER_SECOND = 20.0
REFUSALS_BURST = 200.0
"""What a peer may try in vain before its connection is closed."""
FIRST_MESSAGE_SECONDS = 5.0
"""How long a peer that opened a stream may keep silent."""
STREAM_IDLE_SECONDS = 60.0
"""How long a stream may be without a byte in either direction."""

DHT_MESSAGE_BYTES_MAX = 256 * 1024
"""One request or answer of the record store's protocol."""
DHT_REQUESTS_MAX = 64
"""Requests of other peers to our part of the record store handled at once."""
DHT_REQUESTS_PER_SECOND = 400.0
DHT_REQUESTS_BURST = 800.0
"""Of all peers together; for one peer its allowance counts."""
DHT_KEYS_MAX = 64
"""Keys that one request names."""
DHT_NEIGHBOURS_MAX = 20
"""Peers that one answer names for a key."""
DHT_VALUE_BYTES_MAX = 16 * 1024
"""One stored value with its envelope."""
DHT_SUBKEY_BYTES_MAX = 64
DHT_SUBKEYS_MAX = 512
"""Values under one key, and their bytes in all (an answer must fit one message)."""
DHT_KEY_BYTES_MAX = 128 * 1024
DHT_RECORDS_MAX = 10_000
"""Values that we keep for others, and their bytes in all."""
DHT_TABLE_BYTES_MAX = 64 * 1024 * 1024
DHT_PUBLISHER_RECORDS_MAX = 256
"""Values of one publisher that we keep, and their bytes in all."""
DHT_PUBLISHER_BYTES_MAX = 1024 * 1024
