"""The demo with an engine whose requests wait in a queue."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from tests.browser.conftest import NewPage
from tests.engines import wait_until
from tests.serving.engine.slow_engine import slow_engine

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.mark.long
def test_answer_queued_in_the_engine_is_shown_when_generated(
    new_page: NewPage, project: Project, admin: User, settings: Settings
) -> None:
    page = new_page(admin)
    with slow_engine() as engine:
        settings.ENGINES = {project.base_model: engine.url}
        engine.behave(batch=0)
        page.goto(reverse("demo", args=[project.slug]))
        page.get_by_label("Your message").fill("Hello?")
        page.keyboard.press("Enter")
        wait_until(lambda: engine.comments > 5, what="the engine to say that the request waits")
        expect(page.locator(".reply")).to_be_visible()
        engine.places.release()
        expect(page.locator(".reply .thumbs")).to_be_visible(timeout=60_000)
        expect(page.locator(".reply")).to_contain_text("Hello? so so")
