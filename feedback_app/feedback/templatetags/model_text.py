"""`{{ answer.text|model_text }}`: what a model or an import wrote, cleaned and inert."""

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from feedback_app.web.markdown import render

register = template.Library()


@register.filter
def model_text(text: str) -> SafeString:
    """The text as cleaned Markdown; `hx-disable` keeps htmx away should cleaning ever fail."""
    return format_html('<div class="prose" hx-disable>{}</div>', render(text))
