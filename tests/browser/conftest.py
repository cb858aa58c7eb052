"""Real Chromium on the live server: one browser per module, a fresh context per test."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    expect,
    sync_playwright,
)
from pytest_django.live_server_helper import LiveServer

from feedback_app.accounts.models import User
from tests.conftest import PASSWORD
from tests.engines import PATIENCE

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
expect.set_options(timeout=1000 * PATIENCE)
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium_path(playwright: Playwright) -> str:
    """Return PROSPECT_CHROMIUM, the system's Chromium, or the one downloaded by Playwright."""
    found = os.environ.get("PROSPECT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")
    own = playwright.chromium.executable_path
    if not found and not Path(own).exists():
        pytest.fail("No Chromium: install it, or run `python -m playwright install chromium`.")
    return found or own


# per module, not per session: Playwright keeps an event loop running in this thread, and later
# tests use their own loops
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium_path(playwright), headless=True, args=FLAGS
        )
        yield running
        running.close()


NewPage = Callable[..., Page]


@pytest.fixture
def new_page(browser: Browser, live_server: LiveServer) -> Iterator[NewPage]:
    """`new_page(user)`: a page signed in as this person; `**options` go to the browser context
    (`base_url` for another server than the test's own). Service workers are off unless
    `service_workers="allow"`: they hide requests from `page.route`.

    Afterwards no page may have had a script error or a blocked resource (CSP).
    """
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_page(user: User | None = None, **options: object) -> Page:
        given = {"base_url": live_server.url, "service_workers": "block", **options}
        context = browser.new_context(**given)  # type: ignore[arg-type]
        context.set_default_timeout(1000 * PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: (
                faults.append(message.text) if "Content Security Policy" in message.text else None
            ),
        )
        if user is not None:
            sign_in(page, user)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def sign_in(page: Page, user: User) -> None:
    """Sign in through the form, as people do."""
    page.goto("/accounts/login/")
    page.get_by_label("E-mail address").fill(user.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/accounts/login" not in url)
