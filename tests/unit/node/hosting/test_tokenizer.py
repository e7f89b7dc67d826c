from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from node.hosting.chat_template import ChatTemplate
from node.hosting.decoding import byte_spelling, make_decoder
from node.hosting.read import read_model
from node.hosting.tokenizer import ChatTokenizer
from protocols.errors import ModelFileError, Unsupported
from protocols.messages.ask import ChatMessage

Make = Callable[..., Path]
TALK = [ChatMessage("system", "Be brief."), ChatMessage("user", "the cat 2024?")]
TEXTS = [
    "the cat sat",
    "  2024  états\n\n\tdid not",
    "日本語 🐈‍⬛ 👩‍👩‍👧 é\u0301",
    "x = [1, 22, 333]  # ½ ²\r\n",
    "<|im_start|>user\nhi<|im_end|>",
    "",
]


def window_tokenizer() -> Tokenizer:
    """In the manner of SentencePiece: a mark for spaces, and bytes for what is unknown."""
    tokens = ["<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁the", "▁cat", "s", "é"]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [], byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = make_decoder(tokenizer)
    return [*(decoder.push(token_id) for token_id in ids), decoder.flush()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_joined_are_the_whole_and_no_character_is_broken(
    small_bpe: Tokenizer, text: str
) -> None:
    ids = small_bpe.encode(text).ids
    got = pieces(small_bpe, ids)
    assert "".join(got) == small_bpe.decode(ids, skip_special_tokens=True)
    assert "\ufffd" not in "".join(got)


def test_a_character_waits_for_its_last_byte(small_bpe: Tokenizer) -> None:
    ids = small_bpe.encode("日").ids
    assert len(ids) == 3
    assert pieces(small_bpe, ids) == ["", "", "日", ""]


def test_what_never_becomes_a_character_is_told_at_the_end(small_bpe: Tokenizer) -> None:
    ids = small_bpe.encode("日").ids[:2]
    assert pieces(small_bpe, ids) == ["", "", "\ufffd"]
    assert small_bpe.decode(ids) == "\ufffd"


def test_another_decoder_primed_with_the_same_ids_goes_on(small_bpe: Tokenizer) -> None:
    ids = small_bpe.encode("the 日本 cat 🐈").ids
    whole = pieces(small_bpe, ids)
    for cut in range(len(ids) + 1):
        resumed = make_decoder(small_bpe, ids[:cut])
        rest = [*(resumed.push(token_id) for token_id in ids[cut:]), resumed.flush()]
        assert rest == whole[cut:]


def test_control_and_unknown_ids_are_silent(small_bpe: Tokenizer) -> None:
    for tokenizer in (small_bpe, window_tokenizer()):
        assert pieces(tokenizer, [0, 5_000_000]) == ["", "", ""]


def test_added_tokens_are_told_as_they_are_spelled(small_bpe: Tokenizer) -> None:
    small_bpe.add_tokens([AddedToken("<think> 日", special=False)])
    ids = small_bpe.encode("the<think> 日cat").ids
    assert "".join(pieces(small_bpe, ids)) == small_bpe.decode(ids) == "the<think> 日cat"


@pytest.mark.parametrize(
    "words",
    [
        ["▁the", "▁cat", "s"],
        ["▁the", "<0xE6>", "<0x97>", "<0xA5>", "▁cat"],
        ["<0xE6>", "<0x97>", "▁the"],
        ["▁the", "<0xE6>", "<0x97>", "<0xA5>", "<0xFF>", "s"],
        ["▁", "▁", "▁the", "<0xC3>"],
        ["<s>", "▁the", "<s>", "▁cat"],
    ],
)
def test_other_kinds_of_tokenizers_are_told_exactly_too(words: list[str]) -> None:
    tokenizer = window_tokenizer()
    ids = [found for word in words if (found := tokenizer.token_to_id(word)) is not None]
    assert len(ids) == len(words)
    got = pieces(tokenizer, ids)
    assert "".join(got) == tokenizer.decode(ids, skip_special_tokens=True)


def test_every_byte_has_its_own_spelling() -> None:
    spelling = byte_spelling()
    assert sorted(spelling.values()) == list(range(256))
    assert spelling["Ġ"] == ord(" ")


def test_both_formats_give_the_same_ids(
    make_gguf: Make, make_folder: Make, small_bpe: Tokenizer
) -> None:
    for tokenizer in (read_model(make_gguf()).tokenizer, read_model(make_folder()).tokenizer):
        for text in TEXTS:
            ids = tokenizer.encode_text(text)
            assert list(ids) == small_bpe.encode(text).ids
            decoded = small_bpe.decode(list(ids), skip_special_tokens=True)
            assert tokenizer.decode(ids) == decoded
        wanted = (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nthe cat 2024?<|im_end|>"
        )
        wanted += "\n<|im_start|>assistant\n"
        assert list(tokenizer.encode_chat(TALK)) == small_bpe.encode(wanted).ids
        assert tokenizer.stop_ids == {2}


def test_settings_for_training_batches_do_not_cut_prompts(make_folder: Make) -> None:
    folder = make_folder()
    saved = Tokenizer.from_file(str(folder / "tokenizer.json"))
    saved.enable_truncation(4)
    saved.enable_padding(length=16)
    saved.save(str(folder / "tokenizer.json"))
    ids = read_model(folder).tokenizer.encode_text("the cat sat on the mat")
    assert len(ids) > 4
    assert 0 not in ids


def test_without_a_template_only_text_is_taken(make_gguf: Make) -> None:
    tokenizer = read_model(make_gguf(template="")).tokenizer
    with pytest.raises(Unsupported, match="template"):
        tokenizer.encode_chat(TALK)
    assert tokenizer.encode_text("the cat")


def test_first_ids_stand_before_a_text_only(small_bpe: Tokenizer) -> None:
    tokenizer = ChatTokenizer(small_bpe, ChatTemplate("the cat", {}), frozenset({2}), (1,))
    assert tokenizer.encode_text("the cat") == (1, *tokenizer.encode_chat(TALK))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        # Both follow from trim_blocks and lstrip_blocks.
        ("  {% if true %}\na{% endif %}\n b", "a b"),
        ("{{ bos_token }}{{ messages | length }}", "<s>2"),
        ("{{ messages[0] | tojson }}", '{"role": "system", "content": "Be brief."}'),
        ("{{ '<é>' | tojson }}", '"<é>"'),
        ("{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}x{% endfor %}", "x"),
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-02-29"),
        ("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
        ("{% if add_generation_prompt %}go{% endif %}{{ tools }}", "go"),
    ],
)
def test_templates_mean_what_they_mean_in_transformers(source: str, text: str) -> None:
    template = ChatTemplate(source, {"bos_token": "<s>"}, lambda: datetime(2024, 2, 29))
    assert template.render(TALK) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[7].content + 1 }}",
        "{{ 1 / 0 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages[0].content.nothing() }}",
        "{% include 'secret' %}",
    ],
)
def test_a_template_that_refuses_or_breaks_out_is_an_unsupported_conversation(source: str) -> None:
    with pytest.raises(Unsupported, match="cannot take"):
        ChatTemplate(source, {}).render(TALK)


def test_a_damaged_template_is_a_damaged_model() -> None:
    with pytest.raises(ModelFileError, match="template"):
        ChatTemplate("{% for %}", {})
