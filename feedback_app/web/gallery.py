"""The component gallery: every component of templates/_components and of components.css.

Only DEBUG serves it, at /components/, in light and dark side by side.
"""

from django import forms
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

SAMPLE = """<think>
The reader wants **code**.
</think>

A function and a table:

```python
# greets somebody
@cache
def greet(name: str = "world", times: int = 3) -> str:
    return f"Hello {name}! " * times
```

```diff
-old line
+new line
```

| name | meaning |
|---|---|
| `times` | how often |
"""


class SampleForm(forms.Form):
    name = forms.CharField(label="Text field", help_text="A help text below the field.")
    order = forms.ChoiceField(label="Choice", choices=[("new", "Newest first"), ("old", "Oldest")])
    text = forms.CharField(label="Several lines", widget=forms.Textarea(attrs={"rows": 2}))
    agree = forms.BooleanField(label="Checkbox", help_text="Label at the right.", required=False)


@login_not_required
def gallery(request: HttpRequest) -> HttpResponse:
    """Render the gallery with an empty form, and with one that has errors. Raises Http404 unless
    DEBUG is on."""
    if not settings.DEBUG:
        raise Http404
    context = {
        "themes": [
            (name, SampleForm({}, auto_id=f"{name}_%s"), SampleForm(auto_id=f"{name}_empty_%s"))
            for name in ("light", "dark")
        ],
        "text": SAMPLE,
        "tabs": [("First", "#first", True), ("Second", "#second", False)],
        "page": Paginator(range(30), 10).get_page(2),
    }
    return render(request, "gallery.html", context)
