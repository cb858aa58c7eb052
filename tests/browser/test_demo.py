"""The demo: answers are shown as they come, and a message outlives sign-out and lost connection."""

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, Route, expect
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Vote
from tests.browser.conftest import NewPage
from tests.conftest import PASSWORD
from tests.serving.engine.slow_engine import slow_engine

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def say(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def test_message_outlives_an_expired_session(
    new_page: NewPage, project: Project, admin: User, settings: Settings
) -> None:
    page = new_page(admin)
    with slow_engine() as engine:
        settings.ENGINES = {project.base_model: engine.url}
        page.goto(reverse("demo", args=[project.slug]))
        Session.objects.all().delete()
        say(page, "Hello?")
        expect(page.get_by_text("You have been signed out.")).to_be_visible()
        expect(page.get_by_label("Your message")).to_have_value("Hello?")
        expect(page.locator(".bubble")).to_have_count(0)
        page.get_by_label("E-mail address").fill(admin.email)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("You have been signed out.")).to_have_count(0)
        page.reload()
        expect(page.get_by_label("Your message")).to_have_value("Hello?")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".reply .thumbs")).to_be_visible(timeout=60_000)
        page.reload()
        expect(page.get_by_label("Your message")).to_have_value("")


def test_archived_demo_without_a_conversation_opens_at_its_top(
    new_page: NewPage, project: Project, admin: User
) -> None:
    Project.objects.update(archived_at=timezone.now())
    page = new_page(admin, viewport={"width": 390, "height": 844})
    page.goto(reverse("demo", args=[project.slug]))
    assert page.evaluate("document.documentElement.scrollHeight > innerHeight")
    assert page.evaluate("scrollY") == 0


def test_lost_connection_is_named_and_the_message_kept(
    new_page: NewPage, project: Project, admin: User
) -> None:
    page = new_page(admin)
    page.goto(reverse("demo", args=[project.slug]))

    def fail(route: Route) -> None:
        if route.request.method == "POST":
            route.abort("connectionfailed")
        else:
            route.continue_()

    page.route("**/demo/**", fail)
    say(page, "Hello?")
    expect(page.locator(".toast.bad")).to_contain_text("No connection to the server.")
    expect(page.get_by_label("Your message")).to_have_value("Hello?")


def test_answer_is_shown_while_it_is_generated(
    new_page: NewPage, project: Project, admin: User, settings: Settings
) -> None:
    page = new_page(admin)
    with slow_engine() as engine:
        settings.ENGINES = {project.base_model: engine.url}
        page.goto(reverse("demo", args=[project.slug]))
        page.evaluate(
            """() => {
                window.lengths = new Set();
                new MutationObserver(() => {
                    const raw = document.querySelector(".reply .raw");
                    if (raw?.textContent) window.lengths.add(raw.textContent.length);
                }).observe(document.getElementById("talk"), {subtree: true, childList: true});
            }"""
        )
        say(page, "Hello?")
        expect(page.locator(".reply .thumbs")).to_be_visible()
    assert page.evaluate("window.lengths.size") > 1, "the answer arrived in one piece"


def test_key_opens_the_last_answer_for_correction(
    new_page: NewPage, project: Project, admin: User, settings: Settings
) -> None:
    page = new_page(admin)
    with slow_engine() as engine:
        settings.ENGINES = {project.base_model: engine.url}
        page.goto(reverse("demo", args=[project.slug]))
        say(page, "Hello?")
        expect(page.locator(".reply .thumbs")).to_be_visible(timeout=60_000)

        page.get_by_label("Your message").press("e")
        expect(page.get_by_label("The answer as it should be")).to_be_hidden()
        page.get_by_label("Your message").evaluate("field => field.blur()")
        page.keyboard.press("e")
        corrected = page.get_by_label("The answer as it should be")
        expect(corrected).to_be_focused()
        corrected.fill("Hello.")
        page.get_by_role("button", name="Save correction").click()

        expect(page.get_by_text("Corrected")).to_be_visible()
    assert dict(Vote.objects.values_list("completion__text", "verdict"))["Hello."] == "up"
