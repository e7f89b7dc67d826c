"""Tokenizers of GGUF files against the algorithm of SentencePiece and against transformers."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from node.hosting.decoding import make_decoder
from node.hosting.gguf import Value
from node.hosting.gguf_sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from node.hosting.gguf_tokenizer import read_gguf_tokenizer
from node.hosting.tokenizer import ChatTokenizer
from protocols.errors import ModelFileError

SPACE = "\u2581"
PATH = Path("model.gguf")
SENTENCE = "the cat sat on the mat then the dog and the cats ran off at once 2024 états"
TEXTS = [
    "the cat sat",
    "then  the   cats\n\nran\toff",
    "états 日本 🐈 thethe",
    "at\u2581once",
    "x",
    "",
    " the",
]


def pieces(defined: Sequence[str] = ()) -> dict[str, tuple[float, int]]:
    """Control, bytes, symbols of its own, and then parts of words, the more common the better."""
    found: dict[str, tuple[float, int]] = {"<unk>": (0.0, UNKNOWN)}
    found |= dict.fromkeys(("<s>", "</s>", "<end_of_turn>"), (0.0, CONTROL))
    found |= {f"<0x{byte:02X}>": (0.0, BYTE) for byte in range(256)}
    found |= dict.fromkeys(defined, (0.0, USER_DEFINED))
    parts: dict[str, int] = {}
    for word in SENTENCE.split():
        text = SPACE + word
        for start in range(len(text)):
            for end in range(start + 1, len(text) + 1):
                parts[text[start:end]] = parts.get(text[start:end], 0) + end - start
    best = sorted(parts, key=lambda part: (-parts[part], part))
    kept = [part for part in best if len(part) == 1] + [p for p in best if len(p) > 1][::2]
    ranks = {part: -float(rank) for rank, part in enumerate(sorted(kept, key=best.index))}
    return found | {part: (ranks[part], NORMAL) for part in kept if part not in found}


def metadata(vocabulary: dict[str, tuple[float, int]], **changes: Value) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "model": "llama",
        "tokens": tuple(vocabulary),
        "scores": tuple(score for score, _ in vocabulary.values()),
        "token_type": tuple(kind for _, kind in vocabulary.values()),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | changes).items()}


def read(vocabulary: dict[str, tuple[float, int]], **changes: Value) -> ChatTokenizer:
    return read_gguf_tokenizer(PATH, metadata(vocabulary, **changes))


def sentencepiece(text: str, vocabulary: dict[str, tuple[float, int]], prefix: bool) -> list[str]:
    """The algorithm itself: join the best neighbours, leftmost first; spell the rest in bytes."""
    marked = (SPACE if prefix and text else "") + text.replace(" ", SPACE)
    symbols = list(marked)
    while True:
        joins = [
            (vocabulary[left + right][0], -index)
            for index, (left, right) in enumerate(pairwise(symbols))
            if vocabulary.get(left + right, (0, CONTROL))[1] == NORMAL
        ]
        if not joins:
            break
        at = -max(joins)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    known = [[symbol] if symbol in vocabulary else as_bytes(symbol) for symbol in symbols]
    return [token for tokens in known for token in tokens]


def as_bytes(symbol: str) -> list[str]:
    return [f"<0x{byte:02X}>" for byte in symbol.encode()]


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_joined_as_sentencepiece_joins_them(text: str, prefix: bool) -> None:
    vocabulary = pieces()
    tokenizer = read(vocabulary, add_space_prefix=prefix)
    first, *ids = tokenizer.encode_text(text)
    assert first == 1
    names = list(vocabulary)
    assert [names[token_id] for token_id in ids] == sentencepiece(text, vocabulary, prefix)
    said = tokenizer.decode(ids)
    assert said == text.replace(SPACE, " ")
    decoder = make_decoder(tokenizer.tokenizer)
    assert "".join([*map(decoder.push, ids), decoder.flush()]) == said


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_are_those_of_transformers(prefix: bool) -> None:
    vocabulary = pieces()
    judge = transformers_tokenizer(vocabulary, prefix)
    tokenizer = read(vocabulary, add_space_prefix=prefix, add_bos_token=False)
    # transformers leaves out the prefix where a text begins with a space; SentencePiece does not.
    for text in TEXTS[:-1]:
        for spelled in (text, f"<s>{text}<end_of_turn>"):
            ids = judge.encode(spelled, add_special_tokens=False)
            assert list(tokenizer.encode_text(spelled)) == ids


def transformers_tokenizer(vocabulary: dict[str, tuple[float, int]], prefix: bool) -> Any:
    from transformers import GemmaTokenizer, LlamaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    ids = {text: index for index, text in enumerate(vocabulary)}
    others = [text for text, (_, kind) in vocabulary.items() if kind != NORMAL]
    scores = {text: score for text, (score, _) in vocabulary.items()}
    merges = generate_merges(ids, scores, skip_tokens=others)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    special: dict[str, Any] = {"additional_special_tokens": ["<end_of_turn>"]}
    if prefix:
        return LlamaTokenizer(vocab=ids, merges=merges, legacy=True, **names, **special)
    spare = {"pad_token": "<unk>", "mask_token": "<unk>"}
    return GemmaTokenizer(vocab=ids, merges=merges, **names, **spare, **special)


def test_symbols_of_the_model_are_never_cut_or_joined() -> None:
    vocabulary = pieces(defined=["<table>", SPACE * 2, SPACE * 3, "\n\n"])
    names = list(vocabulary)
    tokenizer = read(vocabulary, add_space_prefix=False, add_bos_token=False)
    got = [names[i] for i in tokenizer.encode_text("the<table>cat   sat\n\n  on")]
    assert "<table>" in got
    assert SPACE * 3 in got
    assert got[got.index("\n\n") + 1] == SPACE * 2
    assert not any(SPACE in token.strip(SPACE) for token in got)
    assert tokenizer.decode(tokenizer.encode_text("a   b")) == "a   b"


def test_a_turns_end_stops_an_answer_though_no_key_says_so() -> None:
    assert read(pieces()).stop_ids == {2, 3}


def test_the_first_token_is_put_before_a_text_unless_the_file_says_no() -> None:
    assert read(pieces()).encode_text("the")[0] == 1
    assert read(pieces(), add_bos_token=False).encode_text("the")[0] != 1


def test_qwen_splits_as_its_own_tokenizer_does() -> None:
    """Its splits and its normal form, against transformers' tokenizer of the same vocabulary."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["Ġ t", "h e", "Ġt he", "1 2", "12 3", "Ã ©", "' s", "Ċ Ċ", "Ġ Ġ"]
    tokens = [*alphabet, *(merge.replace(" ", "") for merge in merges), "<|im_end|>"]
    keys: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tuple(tokens),
        "tokenizer.ggml.token_type": (1,) * (len(tokens) - 1) + (3,),
        "tokenizer.ggml.merges": tuple(merges),
    }
    tokenizer = read_gguf_tokenizer(PATH, keys)
    assert tokenizer.stop_ids == {len(tokens) - 1}
    pairs: Any = [tuple(merge.split()) for merge in merges]
    judge = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=pairs,
        **dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|im_end|>"),
    )
    for text in [*TEXTS, "the 123 the's e\u0301 é\n\n\n  the  ", "a<|im_end|>\r\n12345!?"]:
        assert list(tokenizer.encode_text(text)) == judge.encode(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "bert"}, "'bert'"),
        ({"scores": (1.0,)}, "scores"),
        ({"token_type": ()}, "types"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"precompiled_charsmap": (1, 2)}, "precompiled_charsmap"),
        ({"add_space_prefix": 1}, "add_space_prefix"),
        ({"scores": (float("nan"),) * len(pieces())}, "no number"),
        ({"bos_token_id": 10**6}, "bos_token_id"),
    ],
)
def test_a_vocabulary_that_cannot_be_rebuilt_is_refused_by_name(
    changes: dict[str, Value], words: str
) -> None:
    with pytest.raises(ModelFileError, match=words):
        read(pieces(), **changes)


def test_a_vocabulary_that_cannot_spell_everything_is_refused() -> None:
    vocabulary = pieces()
    del vocabulary["<0x41>"]
    vocabulary["<unk>"] = (0.0, CONTROL)
    with pytest.raises(ModelFileError, match="255 of 256"):
        read(vocabulary)
    with pytest.raises(ModelFileError, match="2000 characters"):
        read(pieces() | {"x" * 2000: (0.0, NORMAL)})
