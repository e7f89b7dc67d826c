"""Answers that follow a JSON schema, a grammar or a regular expression, through llguidance.

Knows that library and its limits (constraints come from strangers); must not know logits or who
asked. Ids and text stay apart: a control token is never taken for the text that spells it.
"""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

import llguidance
from tokenizers import Tokenizer

from node.hosting.grammar_bounds import check_cost
from node.hosting.panics import no_panic
from protocols.errors import Unsupported
from protocols.messages.ask import Constraint, Grammar, JsonSchema, RegularExpression

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_LIMITS = llguidance.LLParserLimits(
    max_items_in_row=500,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    max_grammar_size=100_000,
    precompute_large_lexemes=True,
    verbose_errors=False,
)
"""A compilation takes a fraction of a second, a step some milliseconds, a matcher some tens of MB
at the very most; what needs more is refused, or its answer ends in an error."""
_JSON_OPTIONS: "JsonCompileOptions" = {"whitespace_pattern": r"[ \t\r\n]{0,16}"}
"""Any layout; but not white space for ever, which small models fall into."""


class Grammars:
    """Compiles constraints for one tokenizer. May be used by many threads."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._lock = threading.Lock()
        self._vocabulary: llguidance.LLTokenizer | None = None

    def matcher(self, constraint: Constraint) -> "GrammarMatcher":
        """A matcher at the beginning of an answer.

        `Unsupported` if the constraint means nothing or is too complex, or the model's tokenizer is
        of a kind that constraints cannot be laid on. The first call takes a second longer.
        """
        check_cost(constraint)
        with no_panic():
            made = llguidance.LLMatcher(
                self._for_library(), _grammar_of(constraint), log_level=0, limits=_LIMITS
            )
        matcher = GrammarMatcher(made, self._stop_ids)
        matcher.allowed(())
        if matcher.failure:
            raise Unsupported(f"The {_name(constraint)} cannot be used: {matcher.failure}")
        return matcher

    def _for_library(self) -> llguidance.LLTokenizer:
        """The vocabulary as the library sees it, made when it is first needed."""
        if not self._stop_ids:
            raise Unsupported("This model's answers have no end token, so none can be constrained.")
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = _make_vocabulary(self._tokenizer, min(self._stop_ids))
            return self._vocabulary


class GrammarMatcher:
    """Implements `node.engine.base.Matcher`."""

    def __init__(self, matcher: llguidance.LLMatcher, stop_ids: frozenset[int]) -> None:
        # Kept as it is: taking tokens back (`rollback`, `reset`) leaves 1.9.1 in wrong states.
        self._unused = matcher
        self._matcher = matcher.deep_copy()
        self._stop_ids = stop_ids
        self._eaten: list[int] = []
        self.failure = _told(matcher)
        """Why the constraint cannot be followed any further; empty while it can."""

    def allowed(self, answer: Sequence[int]) -> bytes:
        """See `node.engine.base.Matcher`."""
        if not self.failure:
            self._go_to(answer)
        mask = b"" if self.failure else self._mask()
        if self.failure:
            return _with_bits(b"", self._stop_ids)
        # The library knows one end; a model may have several.
        may_end = any(_has_bit(mask, one) for one in self._stop_ids)
        return _with_bits(mask, self._stop_ids) if may_end else mask

    def _go_to(self, answer: Sequence[int]) -> None:
        """Eat what is new; of another answer than the one that was eaten, everything."""
        count = len(self._eaten)
        if self._eaten != list(answer[:count]):
            self._matcher = self._unused.deep_copy()
            self._eaten.clear()
        fresh = list(answer[len(self._eaten) :])
        if fresh and self._matcher.try_consume_tokens(fresh) < len(fresh):
            self._fail(_told(self._matcher) or "the answer so far does not follow it")
            return
        self._eaten += fresh

    def _mask(self) -> bytes:
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            self._fail(_told(self._matcher))
        elif not any(mask):
            self._fail("no token can follow")
        return mask

    def _fail(self, reason: str) -> None:
        self.failure = reason or "it is too complex"


def _make_vocabulary(tokenizer: Tokenizer, end: int) -> llguidance.LLTokenizer:
    try:
        with no_panic():
            return llguidance.LLTokenizer(
                tokenizer.to_str(), n_vocab=_ids_of(tokenizer), eos_token=end
            )
    except (ValueError, RuntimeError) as error:
        raise Unsupported(
            f"Constraints cannot be laid on this model's tokenizer: {str(error)[:200]}"
        ) from error


def _ids_of(tokenizer: Tokenizer) -> int:
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1


def _grammar_of(constraint: Constraint) -> str:
    library = llguidance.LLMatcher
    try:
        match constraint:
            case JsonSchema(schema):
                return library.grammar_from_json_schema(schema, overrides=_JSON_OPTIONS)
            case Grammar(lark):
                return library.grammar_from_lark(lark)
            case RegularExpression(pattern):
                return library.grammar_from_regex(pattern)
            case _:
                assert_never(constraint)
    except ValueError as error:
        raise Unsupported(f"The {_name(constraint)} cannot be used: {str(error)[:200]}") from error


def _name(constraint: Constraint) -> str:
    match constraint:
        case JsonSchema():
            return "JSON schema"
        case Grammar():
            return "grammar"
        case RegularExpression():
            return "regular expression"


def _told(matcher: llguidance.LLMatcher) -> str:
    """The beginning of what the library says, on one line."""
    return " ".join(matcher.get_error().split())[:200]


def _has_bit(mask: bytes, index: int) -> bool:
    return index // 8 < len(mask) and bool(mask[index // 8] >> (index % 8) & 1)


def _with_bits(mask: bytes, indexes: frozenset[int]) -> bytes:
    grown = bytearray(mask).ljust(max(indexes) // 8 + 1, b"\0")
    for index in indexes:
        grown[index // 8] |= 1 << index % 8
    return bytes(grown)
