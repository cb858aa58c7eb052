"""`{{ answer.text

model_text }}`: text of models and imports as sanitised HTML.
"""

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from feedback_app.web.markdown import render

register = template.Library()


@register.filter
def model_text(text: str) -> SafeString:
    """Return the text as sanitised Markdown; `hx-disable` is a second line of defence."""
    return format_html('<div class="prose" hx-disable>{}</div>', render(text))
