"""The component gallery, served with DEBUG only."""

from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from pytest_django import Settings

COMPONENTS = Path(settings.BASE_DIR) / "templates" / "_components"


@pytest.mark.django_db
def test_gallery_is_served_with_debug_only(client: Client, settings: Settings) -> None:
    assert client.get("/components/").status_code == 404
    settings.DEBUG = True
    page = client.get("/components/")
    assert page.status_code == 200
    assert page.content.count(b"Light") >= 1
    assert page.content.count(b"This field is required.") == 2, "once per theme"


def test_every_component_documents_its_parameters() -> None:
    for path in COMPONENTS.glob("*.html"):
        assert "{% comment %}" in path.read_text(), path.name
