"""Finds the calls of tools in an answer's text, as the known families of models write them.

Knows those formats; must not know OpenAI's shapes or where the text comes from.

Hermes and Qwen write `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, alone or among
other text. Llama 3 answers with nothing but `{"name": ..., "parameters": {...}}`, several of them
parted by semicolons or lines. Only calls of tools that the client named are taken for calls; what
merely looks like one stays text.
"""

import json
from dataclasses import dataclass

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_PYTHON_TAG = "<|python_tag|>"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class FoundCall:
    """A call; `arguments` is a JSON object as text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Found:
    """What can be told now: text first, then calls."""

    text: str = ""
    calls: tuple[FoundCall, ...] = ()


class ToolCallReader:
    """Reads one answer piece by piece. Text that may become a call is held back until it is sure.

    `names` are the tools that can be called. With `one_call` all calls but the first are dropped.
    """

    def __init__(self, names: frozenset[str], *, one_call: bool = False) -> None:
        self._names = names
        self._one_call = one_call
        self._held = ""
        self._is_bare = False
        """Whether the answer is a call without marks, or none at all."""
        self._has_text = False
        self._calls = 0

    def feed(self, text: str) -> Found:
        """What `text` adds."""
        self._held += text
        if not (self._has_text or self._calls or self._is_bare):
            start = self._held.lstrip()
            if not start or _PYTHON_TAG.startswith(start):
                return Found()
            self._is_bare = start.startswith(("{", _PYTHON_TAG))
        return Found() if self._is_bare else self._take_marked()

    def finish(self) -> Found:
        """What was held back, at the end of the answer."""
        rest, self._held = self._held, ""
        if self._is_bare:
            bare = self._bare_calls(rest)
            return Found(calls=self._counted(bare)) if bare else Found(rest)
        before, mark, inside = rest.partition(_OPEN)
        if mark and (call := self._call_in(inside)):  # a model that stopped without closing
            return Found(self._shown(before), self._counted([call]))
        return Found(rest if rest.strip() or not self._calls else "")

    def _take_marked(self) -> Found:
        texts: list[str] = []
        calls: list[FoundCall] = []
        while True:
            start = self._held.find(_OPEN)
            if start < 0:
                texts.append(self._release())
                break
            end = self._held.find(_CLOSE, start)
            if end < 0:
                if not calls:  # else the text would come before the calls that it follows
                    before = self._shown(self._held[:start])
                    self._held = self._held[start if before else 0 :]
                    texts.append(before)
                break
            before, block = self._held[:start], self._held[start : end + len(_CLOSE)]
            self._held = self._held[end + len(_CLOSE) :]
            call = self._call_in(block[len(_OPEN) : -len(_CLOSE)])
            texts.append(self._shown(before if call else before + block))
            if call is not None:
                calls += self._counted([call])
        return Found("".join(texts), tuple(calls))

    def _release(self) -> str:
        """The held text but for what may be the beginning of a mark, or space between calls."""
        safe = len(self._held)
        for length in range(min(len(_OPEN) - 1, safe), 0, -1):
            if _OPEN.startswith(self._held[safe - length :]):
                safe -= length
                break
        if not self._held[:safe].strip() and (self._calls or not self._has_text):
            return ""
        text, self._held = self._held[:safe], self._held[safe:]
        return self._shown(text)

    def _shown(self, text: str) -> str:
        """`text`, unless it is nothing but space around calls."""
        if not text.strip() and not (self._has_text and not self._calls):
            return ""
        self._has_text = True
        return text

    def _counted(self, calls: list[FoundCall]) -> tuple[FoundCall, ...]:
        if self._one_call:
            calls = calls[: max(0, 1 - self._calls)]
        self._calls += len(calls)
        return tuple(calls)

    def _call_in(self, text: str) -> FoundCall | None:
        found = self._bare_calls(text)
        return found[0] if len(found) == 1 else None

    def _bare_calls(self, text: str) -> list[FoundCall]:
        """The calls that all of `text` consists of; none if there is anything else in it."""
        rest = text.strip().removeprefix(_PYTHON_TAG).strip(" \t\r\n;")
        calls: list[FoundCall] = []
        at = 0
        while at < len(rest):
            try:
                value, at = _DECODER.raw_decode(rest, at)
            except (ValueError, RecursionError):
                return []
            call = self._call_of(value)
            if call is None:
                return []
            calls.append(call)
            while at < len(rest) and rest[at] in " \t\r\n;":
                at += 1
        return calls

    def _call_of(self, value: object) -> FoundCall | None:
        if not isinstance(value, dict):
            return None
        name = value.get("name")
        arguments = value.get("arguments", value.get("parameters", {}))
        if not isinstance(name, str) or name not in self._names:
            return None
        if not isinstance(arguments, dict):
            return None
        return FoundCall(name, json.dumps(arguments, ensure_ascii=False))
