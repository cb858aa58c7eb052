"""A hundred verdicts by keyboard alone and a hundred by touch alone: each counted once."""

from collections.abc import Callable
from functools import partial

import pytest
from django.urls import reverse
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as NotYet

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Skip, Vote, VoteEvent
from tests.browser.conftest import NewPage
from tests.conftest import PASSWORD
from tests.engines import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Make = Callable[..., list[Completion]]
HUNDRED = 100
#: Whether this item is shown (or another one), and the desk accepts the next verdict.
SHOWS = """([item, shows]) =>
    (document.getElementById("item")?.dataset.completion === String(item)) === shows
    && document.getElementById("prefetched")
    && !document.querySelector("[data-verdicts][hidden]")
    && !document.querySelector(".htmx-request")"""


def shown(page: Page) -> int:
    """Return the completion on the screen."""
    return int(page.locator("#item").get_attribute("data-completion") or 0)


def next_item(page: Page, after: int) -> None:
    """Wait until another item is shown and the desk accepts the next verdict."""
    page.wait_for_function(SHOWS, arg=[after, False])


def centre(place: Locator) -> tuple[float, float]:
    """Return the point where a finger would tap."""
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def verdicts() -> dict[int, str]:
    return dict(Vote.objects.values_list("completion_id", "verdict"))


@pytest.mark.long
def test_hundred_verdicts_by_keyboard_alone(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    make_completions(HUNDRED + 12)
    page = new_page()
    page.goto(reverse("annotate", args=[project.slug]))
    expect(page.get_by_label("E-mail address")).to_be_focused()  # no click is needed first
    page.keyboard.type(annotator.email)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#item")).to_be_visible()
    page.wait_for_load_state("load")  # its scripts have run then

    given: dict[int, str] = {}
    skipped = []
    while len(given) < HUNDRED:
        item, number = shown(page), len(given)
        if number % 10 == 4 and len(skipped) < number // 10:
            page.keyboard.press("s")
            skipped.append(item)
            next_item(page, item)
            continue
        up = number % 3 == 0
        page.keyboard.press(
            ("u", "ArrowRight")[number % 2] if up else ("d", "ArrowLeft")[number % 2]
        )
        given[item] = "up" if up else "down"
        next_item(page, item)
        if number % 10 == 7:  # undo and vote the other way
            page.keyboard.press("z" if number % 20 == 7 else "Backspace")
            page.wait_for_function(SHOWS, arg=[item, True])
            page.keyboard.press("d" if up else "u")
            given[item] = "down" if up else "up"
            next_item(page, item)
    page.keyboard.press("1")  # a reason for the last verdict
    page.keyboard.press("c")
    page.keyboard.type("udsf are letters here, not verdicts.")

    wait_until(lambda: Vote.objects.exclude(reasons=[]).exists(), what="the reason")
    wait_until(lambda: Vote.objects.count() == HUNDRED, what="a hundred votes")
    assert verdicts() == given
    assert set(Skip.objects.values_list("completion_id", flat=True)) == set(skipped)
    assert len(skipped) == 9
    titles = page.locator("#history li .truncate").all_text_contents()
    assert len(titles) == len(set(titles)) == 10  # ten rows, each another item
    # each cast once; each changed verdict adds two events
    assert VoteEvent.objects.count() == HUNDRED + 2 * 10


@pytest.mark.long
def test_hundred_verdicts_by_touch_alone(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    make_completions(HUNDRED + 2)
    page = new_page(
        annotator, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}
    )
    page.goto(reverse("annotate", args=[project.slug]))
    finger = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        """Send touch events to the browser."""
        finger.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]},
        )

    def tap(button: Locator) -> None:
        x, y = centre(button)
        touch("touchStart", (x, y))
        touch("touchEnd")

    def swipe(*, right: bool) -> None:
        start, end = (90, 300) if right else (300, 90)
        _, height = centre(page.locator("#item"))
        touch("touchStart", (start, height))
        touch("touchMove", ((start + end) / 2, height + 2))
        touch("touchMove", (end, height + 4))
        touch("touchEnd")

    def until(item: int, shows: bool, gesture: Callable[[], None]) -> None:
        """Repeat the gesture as people do: Chromium ignores some taps right after a swipe.

        Only while the desk is as it was and at rest, as a repeated verdict is one on another item.
        """
        for _ in range(10):
            gesture()
            try:
                page.wait_for_function(SHOWS, arg=[item, shows], timeout=800)
            except NotYet:
                if page.evaluate(SHOWS, [item, not shows]):
                    continue
                page.wait_for_function(SHOWS, arg=[item, shows])
            return
        pytest.fail(f"The desk ignored the gesture {gesture}.")

    given: dict[int, str] = {}
    doubted: set[int] = set()
    while len(given) < HUNDRED:
        item, number = shown(page), len(given)
        up = number % 3 == 0
        given[item] = "up" if up else "down"
        button = page.locator(f"#verdicts .verdict[value={given[item]}]")
        until(item, False, partial(swipe, right=up) if number % 2 else partial(tap, button))
        if number % 20 == 9 and item not in doubted:
            doubted.add(item)
            until(item, True, partial(tap, page.locator("[data-undo] button")))
            del given[item]

    wait_until(lambda: Vote.objects.count() == HUNDRED, what="a hundred votes")
    assert verdicts() == given
    assert VoteEvent.objects.count() == HUNDRED + 2 * 5
