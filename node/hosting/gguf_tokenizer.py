"""The tokenizer inside a GGUF file, rebuilt from its metadata.

Knows llama.cpp's `tokenizer.*` keys and how each family of models splits text before merging; must
not know the container. `gguf_sentencepiece` has the families that do not split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from node.hosting.chat_template import ChatTemplate
from node.hosting.gguf import Value
from node.hosting.gguf_sentencepiece import CONTROL, USER_DEFINED, Pieces
from node.hosting.tokenizer import ChatTokenizer
from protocols.errors import ModelFileError

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# As Llama 3's, but each digit alone.
_QWEN_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
_SPECIAL_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_STOP_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_TURN_ENDS = frozenset({"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>"})
"""Control tokens that end an answer even where no key says so, as llama.cpp has it."""


def read_gguf_tokenizer(path: Path, metadata: Mapping[str, Value]) -> ChatTokenizer:
    """The tokenizer that `metadata` describes. `ModelFileError` for a kind we cannot rebuild."""
    return _Reader(path, metadata).tokenizer()


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    metadata: Mapping[str, Value]

    def tokenizer(self) -> ChatTokenizer:
        kind = self._text("ggml.model")
        tokens = self._strings("ggml.tokens")
        match kind:
            case "gpt2":
                tokenizer, adds_first = self._byte_level_bpe(tokens), False
            case "llama":
                tokenizer, adds_first = self._sentencepiece(tokens), True
            case _:
                raise ModelFileError(
                    f"{self.path} has a tokenizer of kind {kind[:80]!r}; from GGUF byte-level BPE "
                    "(gpt2) and SentencePiece (llama) are supported. Use the model's Hugging Face "
                    "folder with tokenizer.json."
                )
        first = self._token_id("ggml.bos_token_id", len(tokens))
        adds_first = self._flag("ggml.add_bos_token", default=adds_first)
        return ChatTokenizer(
            tokenizer=tokenizer,
            template=self._template(tokens),
            stop_ids=self._stop_ids(tokens),
            first_ids=(first,) if adds_first and first is not None else (),
        )

    def _stop_ids(self, tokens: tuple[str, ...]) -> frozenset[int]:
        named = {self._token_id(f"ggml.{key}", len(tokens)) for key in _STOP_KEYS}
        kinds = self._kinds(tokens)
        ends = {
            index
            for index, kind in enumerate(kinds)
            if kind == CONTROL and tokens[index] in _TURN_ENDS
        }
        return frozenset(ends | {token_id for token_id in named if token_id is not None})

    def _sentencepiece(self, tokens: tuple[str, ...]) -> Tokenizer:
        for key in ("precompiled_charsmap", "remove_extra_whitespaces"):
            if self.metadata.get(f"tokenizer.ggml.{key}"):
                raise ModelFileError(
                    f"{self.path} changes texts by tokenizer.ggml.{key}, which is not supported. "
                    "Use the model's Hugging Face folder with tokenizer.json."
                )
        scores = self.metadata.get("tokenizer.ggml.scores")
        kinds = self._kinds(tokens)
        if not isinstance(scores, tuple) or not len(scores) == len(kinds) == len(tokens):
            raise ModelFileError(f"{self.path} lacks scores or types of tokens; it is damaged.")
        try:
            ranked = tuple(float(score) for score in scores)
            has_prefix = self._flag("ggml.add_space_prefix", default=True)
            return Pieces(tokens, ranked, kinds, has_prefix).tokenizer()
        except ValueError as error:
            raise ModelFileError(f"{self.path} {error}; it is damaged. Get it again.") from error

    def _kinds(self, tokens: tuple[str, ...]) -> tuple[int, ...]:
        """The type of each token, or nothing for a file without types."""
        kinds = self.metadata.get("tokenizer.ggml.token_type", ())
        if not isinstance(kinds, tuple) or len(kinds) not in (0, len(tokens)):
            raise ModelFileError(f"{self.path} gives no type for some tokens; it is damaged.")
        return tuple(kind if isinstance(kind, int) else -1 for kind in kinds)

    def _flag(self, key: str, *, default: bool) -> bool:
        value = self.metadata.get(f"tokenizer.{key}", default)
        if not isinstance(value, bool):
            raise ModelFileError(f"{self.path}: tokenizer.{key} is {str(value)[:80]}, no truth.")
        return value

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
        if split == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = self._pre_tokenizer(split)
        tokenizer.decoder = decoders.ByteLevel()
        self._add_special(tokenizer, tokens)
        return tokenizer

    def _add_special(self, tokenizer: Tokenizer, tokens: tuple[str, ...]) -> None:
        """Control tokens and the like are matched whole in the text, never merged."""
        typed = tuple(zip(tokens, self._kinds(tokens), strict=False))
        control = [token for token, kind in typed if kind == CONTROL]
        defined = [token for token, kind in typed if kind == USER_DEFINED]
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
            case "llama-bpe" | "qwen2":
                words = _LLAMA3_SPLIT if split == "llama-bpe" else _QWEN_SPLIT
                return pre_tokenizers.Sequence(
                    [
                        pre_tokenizers.Split(Regex(words), behavior="isolated"),
                        byte_level(add_prefix_space=False, use_regex=False),
                    ]
                )
            case _:
                raise ModelFileError(
                    f"{self.path} splits text by {split!r}, which is not known here: smollm, "
                    "gpt-2, llama-bpe and qwen2 are. Use the model's Hugging Face folder with "
                    "tokenizer.json."
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
