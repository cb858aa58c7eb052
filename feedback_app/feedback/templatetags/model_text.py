"""`{{ answer.text|model_text }}`: text of models and imports as sanitised HTML, with reasoning and
calls of tools folded."""

import json
from collections.abc import Mapping
from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from feedback_app.web.text.markdown import render
from feedback_app.web.text.reasoning import Parts, parts_of

register = template.Library()
AUTHORS = {"user": "User", "tool": "Tool"}
#: Characters of a call's arguments, or of a result, that are shown.
SHOWN = 20_000


@register.filter
def model_text(text: str) -> SafeString:
    """Return the text as sanitised Markdown; `hx-disable` is a second line of defence."""
    return parts_shown(parts_of(text))


@register.filter
def measured_text(answer: Mapping[str, Any] | None) -> SafeString:
    """Return an answer of a gate's report, in which the evaluation has separated the reasoning."""
    text, reasoning = (answer or {}).get("text", ""), (answer or {}).get("reasoning", "")
    if not reasoning:
        return model_text(text) if text else EMPTY
    return parts_shown(Parts(reasoning, text, finished=bool(text.strip())))


def parts_shown(parts: Parts) -> SafeString:
    if not parts.reasoning and parts.finished:
        return prose(parts.answer)
    title = "Reasoning" if parts.finished else "Reasoning, not finished"
    answer = prose(parts.answer) if parts.answer.strip() else NO_ANSWER
    return format_html("{}{}", folded(title, prose(parts.reasoning)), answer)


EMPTY = mark_safe('<p class="muted">(empty)</p>')
NO_ANSWER = mark_safe('<p class="muted">(no answer after it)</p>')


@register.filter
def turn_text(message: Mapping[str, Any]) -> SafeString:
    """Return a message of a conversation: its text, then the calls of tools; a result is folded.
    Definitions of the tools are folded above the first message."""
    return format_html("{}{}", tools_text(message.get("tools") or ""), said_text(message))


@register.filter
def tools_text(tools: str) -> SafeString:
    """Return the definitions of a conversation's tools (JSON), folded; nothing for none."""
    if not tools:
        return mark_safe("")
    found = json.loads(tools)
    count = f"{len(found)} tool{'' if len(found) == 1 else 's'}"
    written = json.dumps(found, ensure_ascii=False, indent=2)
    return folded(f"Definitions of {count}", code(written))


def said_text(message: Mapping[str, Any]) -> SafeString:
    content = message.get("content") or ""
    if message.get("role") == "tool":
        return folded("Result of a tool", code(content))
    calls = format_html_join(
        "", "{}", ((call_block(call["function"]),) for call in message.get("tool_calls") or [])
    )
    return format_html("{}{}", model_text(content) if content.strip() else "", calls)


def call_block(function: Mapping[str, Any]) -> SafeString:
    return folded(f"Call of {function['name']}", code(str(function["arguments"])))


@register.filter
def author(role: str) -> str:
    """Return who wrote a message, for annotators."""
    return AUTHORS.get(role, "Assistant")


def prose(text: str) -> SafeString:
    return format_html('<div class="prose" hx-disable>{}</div>', render(text))


def code(text: str) -> SafeString:
    cut = text if len(text) <= SHOWN else f"{text[:SHOWN]}\n… {len(text) - SHOWN} more characters"
    return format_html(
        '<div class="prose" hx-disable><pre tabindex="0"><code>{}</code></pre></div>', cut
    )


def folded(title: str, content: SafeString) -> SafeString:
    return format_html(
        '<details class="aside-block"><summary>{}</summary>{}</details>', title, content
    )
