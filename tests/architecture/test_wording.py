"""Pages use the standard words of the field, not phrases that were replaced."""

from pathlib import Path

import pytest
from django.conf import settings

#: What pages said once, by what they say now.
REPLACED = {
    "Your last vote:": "Last one:",
    "Change to Down": "To down",
    "Your recent votes appear here": "will stand here",
    "No answers match this filter": "Nothing is left of this choice",
    "Filter and sort": "Filter and order",
    "Reason for override": "gate was not won",
    "per hour": "} an hour",
    "created": ">made {{",
    "expires": "open until",
    "Two-factor authentication": "Second factor",
    "Match system": "Like the system",
    "Upload and preview": "Upload and look",
    "Supported formats": "What is understood",
    "Generate answers": "Ask the versions",
    "Regenerate": "Answer again",
    "No members match": "Nobody here is like that",
    "Erase an end user's data": "Erase a user of your product",
}


@pytest.mark.parametrize(("now", "before"), REPLACED.items())
def test_page_says_it_in_standard_words(now: str, before: str) -> None:
    texts = [path.read_text() for path in Path(settings.BASE_DIR, "templates").rglob("*.html")]

    assert any(now in text for text in texts)
    assert not any(before in text for text in texts)
