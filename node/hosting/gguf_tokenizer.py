"""The tokenizer inside a GGUF file: a byte-level BPE rebuilt from its metadata.

Knows llama.cpp's `tokenizer.*` keys and how each family of models splits text before merging; must
not know the container.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from node.hosting.chat_template import ChatTemplate
from node.hosting.gguf import Value
from node.hosting.tokenizer import ChatTokenizer
from protocols.errors import ModelFileError

_CONTROL, _USER_DEFINED = 3, 4
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_STOP_KEYS = ("eos_token_id", "eot_token_id")


def read_gguf_tokenizer(path: Path, metadata: Mapping[str, Value]) -> ChatTokenizer:
    """The tokenizer that `metadata` describes. `ModelFileError` for a kind we cannot rebuild."""
    return _Reader(path, metadata).tokenizer()


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    metadata: Mapping[str, Value]

    def tokenizer(self) -> ChatTokenizer:
        kind = self._text("ggml.model")
        if kind != "gpt2":
            raise ModelFileError(
                f"{self.path} has a tokenizer of kind {kind!r}; from GGUF only byte-level BPE "
                "(gpt2) is supported. Use the model's Hugging Face folder with tokenizer.json."
            )
        tokens = self._strings("ggml.tokens")
        ids = {key: self._token_id(f"ggml.{key}", len(tokens)) for key in _STOP_KEYS}
        first = self._token_id("ggml.bos_token_id", len(tokens))
        adds_first = self.metadata.get("tokenizer.ggml.add_bos_token", False) is True
        return ChatTokenizer(
            tokenizer=self._byte_level_bpe(tokens),
            template=self._template(tokens),
            stop_ids=frozenset(token_id for token_id in ids.values() if token_id is not None),
            first_ids=(first,) if adds_first and first is not None else (),
        )

    def _byte_level_bpe(self, tokens: tuple[str, ...]) -> Tokenizer:
        vocabulary = {token: index for index, token in enumerate(tokens)}
        if len(vocabulary) != len(tokens):
            raise ModelFileError(f"{self.path} lists a token twice; it is damaged. Get it again.")
        split = self._text("ggml.pre")
        try:
            merges = [_pair(merge) for merge in self._strings("ggml.merges")]
            # Llama 3 takes a word that is a token as it is, whatever the merges say.
            model = models.BPE(vocabulary, merges, ignore_merges=split == "llama-bpe")
        # The library raises bare Exception for a merge of unknown tokens.
        except Exception as error:
            raise ModelFileError(f"{self.path} has damaged merges: {error}.") from error
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = self._pre_tokenizer(split)
        tokenizer.decoder = decoders.ByteLevel()
        self._add_special(tokenizer, tokens)
        return tokenizer

    def _add_special(self, tokenizer: Tokenizer, tokens: tuple[str, ...]) -> None:
        """Control tokens and the like are matched whole in the text, never merged."""
        kinds = self.metadata.get("tokenizer.ggml.token_type", ())
        if not isinstance(kinds, tuple) or len(kinds) not in (0, len(tokens)):
            raise ModelFileError(f"{self.path} gives no type for some tokens; it is damaged.")
        typed = tuple(zip(tokens, kinds, strict=False))
        control = [token for token, kind in typed if kind == _CONTROL]
        defined = [token for token, kind in typed if kind == _USER_DEFINED]
        # All at once: the library rebuilds its search tree at each call.
        tokenizer.add_special_tokens(
            [AddedToken(token, normalized=False, special=True) for token in control]
        )
        tokenizer.add_tokens(
            [AddedToken(token, normalized=False, special=False) for token in defined]
        )

    def _pre_tokenizer(self, split: str) -> pre_tokenizers.PreTokenizer:
        byte_level = pre_tokenizers.ByteLevel
        match split:
            case "smollm":
                # Every digit alone, then GPT-2's split: the model's own tokenizer.json says so.
                return pre_tokenizers.Sequence(
                    [
                        pre_tokenizers.Digits(individual_digits=True),
                        byte_level(add_prefix_space=False, use_regex=True),
                    ]
                )
            case "gpt-2":
                return byte_level(add_prefix_space=False, use_regex=True)
            case "llama-bpe":
                return pre_tokenizers.Sequence(
                    [
                        pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), behavior="isolated"),
                        byte_level(add_prefix_space=False, use_regex=False),
                    ]
                )
            case _:
                raise ModelFileError(
                    f"{self.path} splits text by {split!r}, which is not known here: smollm, gpt-2 "
                    "and llama-bpe are. Use the model's Hugging Face folder with tokenizer.json."
                )

    def _template(self, tokens: tuple[str, ...]) -> ChatTemplate | None:
        source = self.metadata.get("tokenizer.chat_template")
        if not isinstance(source, str):
            return None
        special = {}
        for name, key in _SPECIAL_TOKENS.items():
            token_id = self._token_id(f"ggml.{key}", len(tokens))
            if token_id is not None:
                special[name] = tokens[token_id]
        return ChatTemplate(source, special)

    def _text(self, key: str) -> str:
        value = self.metadata.get(f"tokenizer.{key}")
        if not isinstance(value, str):
            raise ModelFileError(
                f"{self.path} has no tokenizer.{key}; it is not a chat model file."
            )
        return value

    def _strings(self, key: str) -> tuple[str, ...]:
        value = self.metadata.get(f"tokenizer.{key}")
        if not isinstance(value, tuple):
            raise ModelFileError(
                f"{self.path} has no tokenizer.{key}; it is not a chat model file."
            )
        return tuple(str(item) for item in value)

    def _token_id(self, key: str, count: int) -> int | None:
        value = self.metadata.get(f"tokenizer.{key}")
        if value is None:
            return None
        if not isinstance(value, int) or not 0 <= value < count:
            raise ModelFileError(f"{self.path}: tokenizer.{key} is {value}, which is no token.")
        return value


def _pair(merge: str) -> tuple[str, str]:
    left, separator, right = merge.partition(" ")
    if not separator:
        raise ValueError(f"{merge!r} is no pair")
    return left, right
