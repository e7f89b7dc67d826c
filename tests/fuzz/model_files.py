"""The smallest good model files, made byte by byte: seeds for the readers of models.

Knows the formats; must not know our readers. One layer, four numbers wide, six tokens.
"""

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence

HIDDEN, HEADS, KV_HEADS, INNER = 4, 2, 1, 4
TOKENS = ("a", "b", "ab", "<s>", "</s>", "Ġ")
TEMPLATE = "{% for m in messages %}{{ bos_token + m['role'] + m.content | trim }}{% endfor %}"
SHAPES: Mapping[str, tuple[int, ...]] = {
    "token_embd.weight": (len(TOKENS), HIDDEN),
    "output_norm.weight": (HIDDEN,),
    "blk.0.attn_norm.weight": (HIDDEN,),
    "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
    "blk.0.attn_k.weight": (2, HIDDEN),
    "blk.0.attn_v.weight": (2, HIDDEN),
    "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
    "blk.0.ffn_norm.weight": (HIDDEN,),
    "blk.0.ffn_gate.weight": (INNER, HIDDEN),
    "blk.0.ffn_up.weight": (INNER, HIDDEN),
    "blk.0.ffn_down.weight": (HIDDEN, INNER),
}
_HUGGING_FACE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "blk.0.attn_norm": "model.layers.0.input_layernorm",
    "blk.0.attn_q": "model.layers.0.self_attn.q_proj",
    "blk.0.attn_k": "model.layers.0.self_attn.k_proj",
    "blk.0.attn_v": "model.layers.0.self_attn.v_proj",
    "blk.0.attn_output": "model.layers.0.self_attn.o_proj",
    "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm",
    "blk.0.ffn_gate": "model.layers.0.mlp.gate_proj",
    "blk.0.ffn_up": "model.layers.0.mlp.up_proj",
    "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
}
_U8, _U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 0, 4, 5, 6, 7, 8, 9


def gguf_bytes(rope_divisors: Sequence[float] = (), split: str = "smollm") -> bytes:
    """A GGUF file, version 3."""
    keys = [_key("general.architecture", _STRING, _string("llama"))]
    for name, number in (
        ("block_count", 1),
        ("context_length", 32),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INNER),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("rope.dimension_count", HIDDEN // HEADS),
    ):
        keys.append(_key(f"llama.{name}", _U32, struct.pack("<I", number)))
    keys.append(_key("llama.attention.layer_norm_rms_epsilon", _F32, struct.pack("<f", 1e-5)))
    keys.append(_key("tokenizer.ggml.model", _STRING, _string("gpt2")))
    keys.append(_key("tokenizer.ggml.pre", _STRING, _string(split)))
    keys.append(_key("tokenizer.ggml.tokens", _ARRAY, _strings(TOKENS)))
    kinds = struct.pack("<6i", 1, 1, 1, 3, 3, 4)
    keys.append(_key("tokenizer.ggml.token_type", _ARRAY, struct.pack("<IQ", _I32, 6) + kinds))
    keys.append(_key("tokenizer.ggml.merges", _ARRAY, _strings(("a b",))))
    keys.append(_key("tokenizer.ggml.bos_token_id", _U32, struct.pack("<I", 3)))
    keys.append(_key("tokenizer.ggml.eos_token_id", _U32, struct.pack("<I", 4)))
    keys.append(_key("tokenizer.ggml.add_bos_token", _BOOL, b"\1"))
    keys.append(_key("tokenizer.chat_template", _STRING, _string(TEMPLATE)))
    shapes = dict(SHAPES)
    if rope_divisors:
        shapes["rope_freqs.weight"] = (len(rope_divisors),)
    infos, data = b"", b""
    for name, shape in shapes.items():
        infos += _string(name) + struct.pack("<I", len(shape))
        infos += b"".join(struct.pack("<Q", size) for size in reversed(shape))
        infos += struct.pack("<IQ", 0, len(data))
        values = rope_divisors if name == "rope_freqs.weight" else [0.5] * _count(shape)
        data += struct.pack(f"<{len(values)}f", *values)
        data += bytes(-len(data) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys)) + b"".join(keys) + infos
    return head + bytes(-len(head) % 32) + data


def safetensors_header() -> bytes:
    """The JSON at the start of a safetensors file."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in SHAPES.items():
        end = at + 4 * _count(shape)
        own = f"{_HUGGING_FACE[name.removesuffix('.weight')]}.weight"
        entries[own] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    return json.dumps(entries).encode()


def safetensors_data() -> bytes:
    """The numbers behind the header."""
    return bytes(4 * sum(_count(shape) for shape in SHAPES.values()))


def safetensors_bytes() -> bytes:
    """A safetensors file."""
    header = safetensors_header()
    return struct.pack("<Q", len(header)) + header + safetensors_data()


def config_json() -> bytes:
    """`config.json` of the same model."""
    return json.dumps(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": 1,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "vocab_size": len(TOKENS),
            "max_position_embeddings": 32,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
            "tie_word_embeddings": True,
            "eos_token_id": [4],
            "hidden_act": "silu",
        }
    ).encode()


def family_configs() -> tuple[bytes, ...]:
    """`config.json` of other families, in as few words as they can have."""
    shape = json.loads(config_json())
    for name in ("architectures", "rope_scaling", "hidden_act"):
        del shape[name]
    window: dict[str, object] = {"sliding_window": 8}
    families: dict[str, dict[str, object]] = {
        "mistral": window,
        "qwen2": {"use_sliding_window": True, "max_window_layers": 0, **window},
        "qwen3": {"head_dim": 8},
        "smollm3": {"no_rope_layers": [1], "no_rope_layer_interval": 4},
        "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, **window},
    }
    return tuple(
        json.dumps(shape | {"model_type": name} | more).encode() for name, more in families.items()
    )


def tokenizer_json() -> bytes:
    """`tokenizer.json`: a byte-level BPE."""
    added = [
        {"id": index, "content": TOKENS[index], "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for index in (3, 4)
    ]
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": True},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
                ],
            },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<s>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}},
            },
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
            "model": {
                "type": "BPE",
                "unk_token": "a",
                "byte_fallback": False,
                "vocab": {token: index for index, token in enumerate(TOKENS)},
                "merges": ["a b"],
            },
        }
    ).encode()


def wheel_bytes(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive; names are written as they are, wherever they point."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), content, compression)
    return buffer.getvalue()


def _count(shape: Sequence[int]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _strings(texts: Sequence[str]) -> bytes:
    return struct.pack("<IQ", _STRING, len(texts)) + b"".join(map(_string, texts))


def _key(name: str, kind: int, value: bytes) -> bytes:
    return _string(name) + struct.pack("<I", kind) + value
