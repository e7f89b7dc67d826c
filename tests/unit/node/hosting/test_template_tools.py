"""Tools and calls in chat templates, and models whose templates know neither."""

import json
from typing import Any

import pytest

from node.hosting.chat_template import ChatTemplate
from protocols.errors import Unsupported
from protocols.messages.ask import ChatMessage, ToolCall

TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "weather", "description": "of <a> place"}}]
)
TALK = [
    ChatMessage("user", "Is it raining?"),
    ChatMessage("assistant", "", (ToolCall("c1", "weather", '{"city": "Oslo"}'),)),
    ChatMessage("tool", "yes", (), "c1", "weather"),
]
HERMES = """{%- if tools %}<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
{% endif %}{% for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls %}{% if call.function %}{% set call = call.function %}{% endif %}
<tool_call>{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}</tool_call>
{%- endfor %}{% if message.tool_call_id %}({{ message.tool_call_id }} {{ message.name }}){% endif %}
<|im_end|>
{% endfor %}"""


def test_tools_calls_and_results_are_written_as_in_transformers() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    ours = ChatTemplate(HERMES, {}).render(TALK, TOOLS)
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "Is it raining?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Oslo"}},
                }
            ],
        },
        {"role": "tool", "content": "yes", "tool_call_id": "c1", "name": "weather"},
    ]
    theirs: Any = render_jinja_template([turns], tools=json.loads(TOOLS), chat_template=HERMES)
    assert [ours] == theirs[0]
    assert '{"city": "Oslo"}' in ours
    assert "of <a> place" in ours


def test_without_tools_the_template_sees_none() -> None:
    assert "<tools>" not in ChatTemplate(HERMES, {}).render(TALK[:1])


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content }}",
        "{{ messages[0].content }}{% if tools %}there are tools{% endif %}",
        "{% if tools %}{{ raise_exception('none, please') }}{% endif %}{{ messages[0].content }}",
    ],
)
def test_a_template_that_knows_no_tools_refuses_them_by_name(source: str) -> None:
    template = ChatTemplate(source, {})
    assert template.render(TALK[:1]) == "Is it raining?"
    with pytest.raises(Unsupported, match="'tools'"):
        template.render(TALK[:1], TOOLS)


@pytest.mark.parametrize(
    "tools", ["{", "{}", "[1]", '[{"function": {}}]', '[{"function": {"name": 1}}]', "[" * 5_000]
)
def test_tools_that_are_none_are_refused(tools: str) -> None:
    with pytest.raises(Unsupported, match="'tools'"):
        ChatTemplate(HERMES, {}).render(TALK[:1], tools)


def test_arguments_that_are_no_object_stay_text() -> None:
    call = ChatMessage("assistant", "", (ToolCall("c", "f", "not json"),))
    assert '"arguments": "not json"' in ChatTemplate(HERMES, {}).render([call])


def test_the_most_tools_that_a_message_can_carry_are_rendered() -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {f"p{n}": {"type": "string"} for n in range(10)},
            },
        },
    }
    tools = json.dumps([tool] * 100)
    assert 30_000 < len(tools) < 65_536
    assert ChatTemplate(HERMES, {}).render(TALK[:1], tools).count("<tools>") == 1
