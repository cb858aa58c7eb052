"""Disabling the forms of a page that an archived project refuses."""

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import reverse

from feedback_app.feedback.read_only import forms_disable

WHY = "It is archived & 'closed'."
TITLE = ' title="It is archived &amp; &#x27;closed&#x27;."'
PATH = reverse("rules", args=["bot"])
REFUSED = reverse("schedule", args=["bot"])
ALLOWED = reverse("project-restore", args=["bot"])


def disabled(page: str) -> str:
    response = HttpResponse(page)
    forms_disable(response, path=PATH, why=WHY)
    return response.content.decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            f'<form method="post" action="{REFUSED}">\n<input name="a"><p>é</p><button>',
            f'<form method="post" action="{REFUSED}"{TITLE}>\n<input disabled name="a"><p>é</p>'
            "<button disabled>",
        ),
        # without an action to the page itself
        ('<form method="post"><select>', f'<form method="post"{TITLE}><select disabled>'),
        # attributes in any notation, with any text
        (
            f"<FORM data-text='a > b' METHOD=POST action='{REFUSED}'><Input value=\"x > y\" />",
            f"<FORM data-text='a > b' METHOD=POST action='{REFUSED}'{TITLE}>"
            '<Input disabled value="x > y" />',
        ),
        # a control before its form, and one after it of another form
        (
            f'<button form="f"></button><form id="f" method="post" action="{REFUSED}">'
            '</form><input form="g"><form id="g" method="get"></form>',
            f'<button disabled form="f"></button><form id="f" method="post" action="{REFUSED}"'
            f'{TITLE}></form><input form="g"><form id="g" method="get"></form>',
        ),
        # one that is disabled already
        (
            '<form method="post">\n\n<input\n disabled><textarea data-disabled="1">',
            f'<form method="post"{TITLE}>\n\n<input\n disabled><textarea disabled '
            'data-disabled="1">',
        ),
    ],
)
def test_forms_that_would_be_refused_are_disabled(before: str, after: str) -> None:
    assert disabled(before) == after


@pytest.mark.parametrize(
    "page",
    [
        f'<form method="post" action="{ALLOWED}?next=1"><button>Restore</button></form>',
        f'<form action="{REFUSED}"><input></form>',
        '<form method="post" action="/elsewhere/"><input></form>',
        '<form method="get"></form><input><button form="elsewhere">',
        # text that looks like a form
        f'<script>const a = \'<form method="post" action="{REFUSED}"><input>\';</script>',
        f'<!-- <form method="post" action="{REFUSED}"><input> -->&lt;form method="post"&gt;',
        "<p>a < b &amp; c > d &unknown; \r\n\ttext",
    ],
)
def test_everything_else_keeps_its_bytes(page: str) -> None:
    assert disabled(page) == page


def test_other_responses_are_left_alone() -> None:
    data = HttpResponse('<form method="post"><input>', content_type="text/csv")
    forms_disable(data, path=PATH, why=WHY)
    assert data.content == b'<form method="post"><input>'
    forms_disable(StreamingHttpResponse(["a"]), path=PATH, why=WHY)
