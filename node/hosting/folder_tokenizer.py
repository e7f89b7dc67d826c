"""The tokenizer of a Hugging Face folder: `tokenizer.json` and the small files around it.

Knows those files' fields; runs no code from the folder.
"""

from pathlib import Path

from msgspec import Struct
from tokenizers import Tokenizer

from node.hosting.chat_template import ChatTemplate
from node.hosting.json_file import StructT, read_json
from node.hosting.panics import no_panic
from node.hosting.tokenizer import ChatTokenizer
from protocols.errors import ModelFileError, Unsupported

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
)
"""All files that change how text becomes ids or where an answer stops."""

_Token = str | dict[str, object] | None


class _NamedTemplate(Struct):
    name: str
    template: str


class _TokenizerConfig(Struct):
    chat_template: str | list[_NamedTemplate] | None = None
    bos_token: _Token = None
    eos_token: _Token = None
    unk_token: _Token = None
    pad_token: _Token = None


class _StopIds(Struct):
    """The one field that `generation_config.json` and `config.json` are read for here."""

    eos_token_id: int | list[int] | None = None


def read_folder_tokenizer(folder: Path) -> ChatTokenizer:
    """The tokenizer in `folder`. `ModelFileError` if `tokenizer.json` is missing or damaged."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelFileError(
            f"{folder} has no tokenizer.json. Get the model with its fast tokenizer."
        )
    try:
        with no_panic():
            tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, Unsupported) as error:
        raise ModelFileError(f"{path} is damaged: {str(error)[:200]}. Get it again.") from error
    # A file may carry settings for training batches, which would cut or pad prompts.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = _read(folder / "tokenizer_config.json", _TokenizerConfig)
    return ChatTokenizer(
        tokenizer=tokenizer,
        template=_template(folder, config),
        stop_ids=_stop_ids(folder, config, tokenizer),
    )


def _template(folder: Path, config: _TokenizerConfig) -> ChatTemplate | None:
    special = {
        name: text
        for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        if (text := _text_of(getattr(config, name))) is not None
    }
    file = folder / "chat_template.jinja"
    source = _text_in(file) if file.is_file() else _default_template(config)
    return None if source is None else ChatTemplate(source, special)


def _text_in(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{file} cannot be read: {error}.") from error


def _default_template(config: _TokenizerConfig) -> str | None:
    if isinstance(config.chat_template, list):
        named = {template.name: template.template for template in config.chat_template}
        return named.get("default")
    return config.chat_template


def _stop_ids(folder: Path, config: _TokenizerConfig, tokenizer: Tokenizer) -> frozenset[int]:
    """As `transformers` decides: the generation settings, else the model's, else `eos_token`."""
    for name in ("generation_config.json", "config.json"):
        found = _read(folder / name, _StopIds).eos_token_id
        if found is not None:
            return frozenset([found] if isinstance(found, int) else found)
    text = _text_of(config.eos_token)
    token_id = None if text is None else tokenizer.token_to_id(text)
    return frozenset() if token_id is None else frozenset({token_id})


def _text_of(token: _Token) -> str | None:
    if isinstance(token, dict):
        content = token.get("content")
        return content if isinstance(content, str) else None
    return token


def _read(path: Path, kind: type[StructT]) -> StructT:
    return read_json(path, kind) if path.is_file() else kind()
