"""The component gallery in both themes: accessible, and not wider than a phone's screen."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from pytest_django import Settings

from tests.browser.conftest import NewPage

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.long), 390])
def test_gallery_has_no_axe_violations(
    new_page: NewPage, settings: Settings, width: int, tmp_path: Path
) -> None:
    settings.DEBUG = True
    page = new_page(viewport={"width": width, "height": 900})
    page.goto("/components/")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
