"""The desk in a real browser: hotkeys, the prefetched item, undo, and a lost connection."""

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import Page, expect

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Completion, Example, Project, Vote, VoteEvent
from feedback_app.feedback.projects.archive import project_archive
from tests.browser.conftest import NewPage, sign_in
from tests.conftest import PASSWORD
from tests.engines import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Make = Callable[..., list[Completion]]


def open_desk(page: Page, project: Project) -> None:
    page.goto(reverse("annotate", args=[project.slug]))


def shown(page: Page) -> int:
    """Return the completion on the screen."""
    return int(page.locator("#item").get_attribute("data-completion") or 0)


def verdicts() -> dict[int, str]:
    return dict(Vote.objects.values_list("completion_id", "verdict"))


def test_keys_vote_and_show_the_next_item(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second, third = make_completions(3)
    page = new_page(annotator)
    open_desk(page, project)

    page.keyboard.press("u")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))
    expect(page.locator("#last")).to_contain_text("Your last vote: Up")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(third.pk))
    expect(page.locator("#history li")).to_have_count(2)

    assert verdicts() == {first.pk: "up", second.pk: "down"}
    assert Example.objects.count() == 2


@pytest.mark.long
def test_next_item_is_shown_before_the_server_responds(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    _, second, _ = make_completions(3)
    page = new_page(annotator)
    held: list[object] = []
    page.route("**/vote/", lambda route: held.append(route))
    open_desk(page, project)

    page.keyboard.press("u")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))
    # no key votes on it while the first request is in flight
    page.keyboard.press("d")

    assert len(held) == 1
    assert not Vote.objects.exists()


@pytest.mark.long
def test_queue_filter_is_in_the_url_and_kept_while_voting(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    _, second, _, fourth = make_completions(4)
    Completion.objects.filter(pk__in=[second.pk, fourth.pk]).update(topic="Tee & Kaffee")
    page = new_page(annotator)
    open_desk(page, project)
    page.get_by_text("Filter and sort").click()

    page.get_by_label("Topic").select_option("Tee & Kaffee")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))
    assert "topic=Tee+%26+Kaffee" in page.url
    page.keyboard.press("u")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(fourth.pk))
    expect(page.locator("#last")).to_contain_text("Your last vote: Up")
    page.keyboard.press("d")

    expect(page.get_by_text("No more answers match this filter")).to_be_visible()
    page.locator("#waiting").get_by_role("link", name="Show everything").click()
    expect(page.locator("#item")).to_be_visible()
    assert shown(page) not in (second.pk, fourth.pk)
    assert set(verdicts()) == {second.pk, fourth.pk}


def test_reasons_are_toggled_by_digits(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    [first, _] = make_completions(2)
    page = new_page(annotator)
    open_desk(page, project)
    page.keyboard.press("d")
    expect(page.locator("#last")).to_contain_text("Your last vote: Down")

    page.keyboard.press("2")
    page.keyboard.press("3")
    wait_until(
        lambda: Vote.objects.get(completion=first).reasons == ["long", "unfinished"],
        what="both reasons",
    )
    page.keyboard.press("2")

    wait_until(
        lambda: Vote.objects.get(completion=first).reasons == ["unfinished"], what="one reason"
    )


def test_undo_by_key_shows_the_item_again(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second = make_completions(2)
    page = new_page(annotator)
    open_desk(page, project)
    page.keyboard.press("u")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))
    expect(page.locator("#last")).to_contain_text("Undo")

    page.keyboard.press("z")

    expect(page.locator("#item")).to_have_attribute("data-completion", str(first.pk))
    wait_until(lambda: not Vote.objects.exists(), what="the vote to be undone")
    assert list(VoteEvent.objects.order_by("pk").values_list("verdict", flat=True)) == ["up", ""]


@pytest.mark.long
def test_flag_can_be_undone_from_its_toast(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second = make_completions(2)
    page = new_page(annotator)
    open_desk(page, project)
    page.keyboard.press("f")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))

    page.locator(".toast").get_by_role("button", name="Undo").click()

    expect(page.locator("#item")).to_have_attribute("data-completion", str(first.pk))
    wait_until(
        lambda: not Completion.objects.filter(flagged=True).exists(), what="the flag to be removed"
    )


@pytest.mark.parametrize("size", [(390, 844), (1280, 860)])
def test_one_message_at_a_time_and_none_over_the_verdicts(
    new_page: NewPage,
    project: Project,
    annotator: User,
    make_completions: Make,
    size: tuple[int, int],
) -> None:
    items = make_completions(4)
    page = new_page(annotator, viewport={"width": size[0], "height": size[1]})
    open_desk(page, project)
    for next_item in items[1:3]:
        page.keyboard.press("s")
        expect(page.locator("#item")).to_have_attribute("data-completion", str(next_item.pk))
        expect(page.locator("#prefetched")).to_be_attached()
    toast = page.locator("#toasts > *")
    expect(toast).to_have_count(1)
    expect(toast).to_contain_text("Skipped.")
    message, verdict_form = toast.bounding_box(), page.locator("#verdicts").bounding_box()
    assert message and verdict_form
    assert message["y"] + message["height"] <= verdict_form["y"]


def test_hotkeys_are_disabled_while_typing_and_in_the_dialog(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second = make_completions(2)
    page = new_page(annotator)
    open_desk(page, project)

    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("u")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("c")
    page.keyboard.type("dull, but correct")
    assert not Vote.objects.exists()
    page.keyboard.press("Escape")
    page.keyboard.press("u")

    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))
    wait_until(Vote.objects.exists, what="the vote")
    assert Vote.objects.get(completion=first).comment == "dull, but correct"


@pytest.mark.long
def test_earlier_verdict_is_changed_in_the_history(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    [first, _] = make_completions(2)
    page = new_page(annotator)
    open_desk(page, project)
    page.keyboard.press("d")
    expect(page.locator("#history li")).to_have_count(1)

    page.get_by_role("button", name=re.compile("Change to up")).click()

    expect(page.get_by_role("button", name=re.compile("Change to down"))).to_be_visible()
    assert verdicts() == {first.pk: "up"}


def test_two_tabs_show_different_items(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second, third, _, fifth = make_completions(5)
    page = new_page(annotator)
    open_desk(page, project)
    other = page.context.new_page()
    open_desk(other, project)

    expect(page.locator("#item")).to_have_attribute("data-completion", str(first.pk))
    expect(other.locator("#item")).to_have_attribute("data-completion", str(third.pk))
    page.keyboard.press("u")
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))
    page.keyboard.press("u")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(fifth.pk))
    other.close()
    page.reload()
    expect(page.locator("#item")).to_have_attribute("data-completion", str(third.pk))
    assert verdicts() == {first.pk: "up", second.pk: "up"}


@pytest.mark.long
def test_second_tab_says_that_the_last_item_is_judged_and_can_change_it(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    [last] = make_completions(1)
    page = new_page(annotator)
    open_desk(page, project)
    other = page.context.new_page()
    open_desk(other, project)
    page.keyboard.press("u")
    expect(page.locator("#history li")).to_have_count(1)

    other.keyboard.press("d")

    toast = other.locator("#toasts > *")
    expect(toast).to_contain_text("You have already judged this answer Up")
    expect(other.get_by_text("All done")).to_be_visible()
    assert verdicts() == {last.pk: "up"}
    toast.get_by_role("button", name="Change to Down").click()
    expect(other.get_by_role("button", name=re.compile("Change to up"))).to_be_visible()
    expect(toast).to_have_count(0)
    assert verdicts() == {last.pk: "down"}


def test_forms_work_without_javascript(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second = make_completions(2)
    page = new_page(annotator, java_script_enabled=False)
    open_desk(page, project)

    page.get_by_role("button", name="Down").click()
    page.get_by_label("Too long").check(force=True)
    page.get_by_role("button", name="Save reasons").click()
    assert shown(page) == second.pk
    page.get_by_role("button", name="Up", exact=True).click()

    assert verdicts() == {first.pk: "down", second.pk: "up"}
    assert Vote.objects.get(completion=first).reasons == ["long"]
    expect(page.get_by_text("All done")).to_be_visible()


def test_verdicts_cast_offline_are_sent_once_in_order(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second, third = make_completions(3)
    page = new_page(annotator)
    open_desk(page, project)

    page.context.set_offline(True)
    page.wait_for_function("!navigator.onLine")  # it takes effect a little later
    page.keyboard.press("u")
    expect(page.locator("#outbox")).to_contain_text("1 verdict is kept")
    page.keyboard.press("d")
    expect(page.locator("#outbox")).to_contain_text("2 verdicts are kept")
    expect(page.locator("#item")).to_contain_text("when the connection is back")
    expect(page.locator("#toasts > *")).to_have_count(0)  # nothing failed: they are kept
    assert not Vote.objects.exists()
    page.context.set_offline(False)

    wait_until(lambda: Vote.objects.count() == 2, what="both verdicts on the server")
    expect(page.locator("#outbox")).to_be_hidden()
    expect(page.locator("#item")).to_have_attribute("data-completion", str(third.pk))
    assert verdicts() == {first.pk: "up", second.pk: "down"}
    order = VoteEvent.objects.order_by("pk").values_list("completion_id", flat=True)
    assert list(order) == [first.pk, second.pk]


def ahead_loaded(page: Page) -> None:
    """Wait until the browser keeps the items that come next, and the page as it is."""
    keys = "caches.open('desk').then((kept) => kept.keys()).then((keys) => keys.map((k) => k.url))"
    wait_until(
        lambda: all(
            any(url.endswith(end) for url in page.evaluate(keys))
            for end in ("/ahead/", "/annotate/", ".js")
        ),
        what="the kept items, page and files",
    )


def offline(page: Page) -> None:
    page.context.set_offline(True)
    page.wait_for_function("!navigator.onLine")  # it takes effect a little later


def test_annotator_goes_on_for_fifty_items_without_a_connection(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    items = [item.pk for item in make_completions(110)]
    page = new_page(annotator)
    with page.expect_response("**/annotate/ahead/**"):
        open_desk(page, project)

    offline(page)
    for number, pk in enumerate(items[:52], start=1):
        expect(page.locator("#item")).to_have_attribute("data-completion", str(pk))
        page.keyboard.press("u" if number % 2 else "d")
        expect(page.locator("#outbox")).to_contain_text(f"{number} verdict")
    expect(page.locator("#item")).to_contain_text("No more answers are loaded")
    assert not Vote.objects.exists()
    page.context.set_offline(False)

    wait_until(lambda: Vote.objects.count() == 52, what="the kept verdicts")
    expect(page.locator("#outbox")).to_be_hidden()
    expect(page.locator("#item")).to_have_attribute("data-completion", str(items[52]))
    order = VoteEvent.objects.order_by("pk").values_list("completion_id", "verdict")
    assert list(order) == [(pk, "down" if n % 2 else "up") for n, pk in enumerate(items[:52])]


def test_page_that_is_loaded_again_without_a_connection_goes_on(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    items = [item.pk for item in make_completions(12)]
    page = new_page(annotator, service_workers="allow")
    open_desk(page, project)
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    ahead_loaded(page)
    page.keyboard.press("u")
    wait_until(lambda: verdicts() == {items[0]: "up"}, what="the first vote")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(items[1]))
    expect(page.locator("#history-list li")).to_have_count(1)  # the answer has come

    offline(page)
    for number, pk in enumerate(items[1:4], start=1):
        expect(page.locator("#item")).to_have_attribute("data-completion", str(pk))
        page.keyboard.press("d")
        expect(page.locator("#outbox")).to_contain_text(f"{number} verdict")
    shown_by_kept_page = """async () => {
        const kept = await caches.match(location.pathname, { cacheName: "desk" });
        const html = kept ? await kept.text() : "";
        const page = new DOMParser().parseFromString(html, "text/html");
        return page.querySelector("#item")?.dataset.completion;
    }"""
    wait_until(
        lambda: page.evaluate(shown_by_kept_page) == str(items[4]), what="the page as it is now"
    )
    page.reload()

    expect(page.locator("#outbox")).to_contain_text("3 verdicts are kept")
    for number, pk in enumerate(items[4:6], start=4):
        expect(page.locator("#item")).to_have_attribute("data-completion", str(pk))
        page.keyboard.press("u")
        expect(page.locator("#outbox")).to_contain_text(f"{number} verdicts are kept")
    page.context.set_offline(False)

    wait_until(lambda: Vote.objects.count() == 6, what="the kept verdicts")
    expected = dict.fromkeys(items[:1] + items[4:6], "up") | dict.fromkeys(items[1:4], "down")
    assert verdicts() == expected
    # signed out: the next person at this computer finds nothing
    page.goto("/accounts/logout/")
    wait_until(lambda: not page.evaluate("caches.has('desk')"), what="the cache to go")


@pytest.mark.long
def test_verdict_above_the_rate_limit_is_kept_and_sent_later(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    make_completions(4)
    Project.objects.filter(pk=project.pk).update(votes_per_hour=1)
    page = new_page(annotator)
    open_desk(page, project)

    page.keyboard.press("u")
    expect(page.locator("#history li")).to_have_count(1)
    page.keyboard.press("d")

    expect(page.locator("#outbox")).to_contain_text("Take a break")
    expect(page.locator("#outbox")).to_contain_text("1 verdict is kept in this browser")
    expect(page.locator("#toasts > *")).to_have_count(0)
    assert Vote.objects.count() == 1
    Project.objects.filter(pk=project.pk).update(votes_per_hour=0)
    wait_until(lambda: Vote.objects.count() == 2, what="the kept verdict")
    expect(page.locator("#outbox")).to_be_hidden()


@pytest.mark.long
def test_reload_while_offline_keeps_all_verdicts(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    [first, _] = make_completions(2)
    page = new_page(annotator)
    # before the page opens: routes added later may be bypassed
    page.route("**/vote/", lambda route: route.abort())
    open_desk(page, project)
    page.keyboard.press("u")
    expect(page.locator("#outbox")).to_contain_text("1 verdict is kept")

    page.unroute("**/vote/")
    page.reload()

    wait_until(lambda: verdicts() == {first.pk: "up"}, what="the kept verdict")


@pytest.mark.long
def test_verdict_refused_later_is_reported_beside_those_that_were_sent(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second, third = make_completions(3)
    page = new_page(annotator)
    open_desk(page, project)
    page.context.set_offline(True)
    page.wait_for_function("!navigator.onLine")  # it takes effect a little later
    page.keyboard.press("u")
    expect(page.locator("#outbox")).to_contain_text("1 verdict is kept")
    page.keyboard.press("d")
    expect(page.locator("#outbox")).to_contain_text("2 verdicts are kept")
    Completion.objects.filter(pk=first.pk).delete()

    page.context.set_offline(False)

    # the page was loaded again after the last one
    expect(page.locator("#item")).to_have_attribute("data-completion", str(third.pk))
    expect(page.locator("#toasts")).to_contain_text("One verdict was refused")
    assert verdicts() == {second.pk: "down"}
    page.reload()
    expect(page.locator("#item")).to_be_visible()
    expect(page.locator("#toasts > *")).to_have_count(0)


def test_verdict_cast_signed_out_is_sent_after_a_new_sign_in(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    [first, _] = make_completions(2)
    page = new_page(annotator)
    open_desk(page, project)
    page.context.clear_cookies()
    page.keyboard.press("u")
    expect(page.locator("#outbox")).to_contain_text("signed out")
    expect(page.locator("#toasts > *")).to_have_count(0)  # the banner says what to do
    assert not Vote.objects.exists()

    other = page.context.new_page()
    sign_in(other, annotator)

    wait_until(lambda: verdicts() == {first.pk: "up"}, what="the kept verdict")
    expect(page.locator("#outbox")).to_be_hidden()


@pytest.mark.parametrize("why", ["archived", "viewer"])
def test_refused_verdict_is_not_kept_and_the_page_says_why(
    new_page: NewPage,
    project: Project,
    annotator: User,
    admin: User,
    make_completions: Make,
    why: str,
) -> None:
    """403 is a sign-in that has ended (test above), or something that no sign-in changes."""
    make_completions(2)
    page = new_page(annotator)
    open_desk(page, project)
    if why == "archived":
        project_archive(project=project, by=admin)
    else:
        member_set(project=project, user=annotator, role=Role.VIEWER)

    page.keyboard.press("u")

    told = "is archived" if why == "archived" else "You can't open this page"
    expect(page.locator("main")).to_contain_text(told)
    expect(page.locator("#outbox")).to_be_hidden()
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('outbox'))") == []
    assert not Vote.objects.exists()


@pytest.mark.long
def test_signed_out_annotator_signs_in_on_the_page_and_continues(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second, _ = make_completions(3)
    page = new_page(annotator)
    open_desk(page, project)
    page.context.clear_cookies()
    page.keyboard.press("u")
    banner = page.locator("#outbox")
    banner.get_by_label("E-mail address").fill(annotator.email)
    banner.get_by_label("Password").fill("not mine")
    banner.get_by_role("button", name="Sign in").click()
    expect(banner.get_by_role("alert")).to_contain_text("do not belong together")
    assert Axe().run(page).response["violations"] == []
    assert not Vote.objects.exists()

    # typed text is kept while the outbox retries in the background
    banner.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")

    wait_until(lambda: verdicts() == {first.pk: "up"}, what="the kept verdict")
    expect(banner).to_be_hidden()
    expect(page.locator("#history li")).to_have_count(1)  # as rendered by the server
    page.wait_for_load_state("load")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))
    page.keyboard.press("d")
    wait_until(lambda: verdicts() == {first.pk: "up", second.pk: "down"}, what="the next one")


def test_swipe_right_votes_up(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second = make_completions(2)
    page = new_page(annotator, has_touch=True, viewport={"width": 390, "height": 844})
    open_desk(page, project)

    page.evaluate(
        """() => {
            const item = document.getElementById("item");
            const at = (x) => [new Touch({identifier: 1, target: item, clientX: x, clientY: 200})];
            const fire = (type, x) => item.dispatchEvent(new TouchEvent(type, {
                bubbles: true, touches: type === "touchend" ? [] : at(x), changedTouches: at(x)}));
            window.swiped = (...steps) => steps.forEach(([type, x]) => fire(type, x));
            swiped(["touchstart", 60], ["touchmove", 130], ["touchmove", 160]);
        }"""
    )
    item = page.locator("#item")
    expect(item).to_have_attribute("data-swipe", "up")
    word = "() => getComputedStyle(document.getElementById('item'), '::after').content"
    assert page.evaluate(word) == '"Up"'
    page.evaluate("() => swiped(['touchmove', 100])")
    expect(item).to_have_attribute("data-swipe", "")
    page.evaluate("() => swiped(['touchend', 220])")

    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))
    wait_until(lambda: verdicts() == {first.pk: "up"}, what="the vote")


def test_answer_is_corrected_in_place(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    first, second, third = make_completions(3)
    page = new_page(annotator)
    open_desk(page, project)

    page.keyboard.press("e")
    field = page.locator("#correction")
    expect(field).to_be_focused()
    expect(field).to_have_value(first.text)
    field.press("End")
    field.type(" With a reason.")
    # an up would drop what was written
    page.locator("#verdicts .verdict[value=up]").click()
    expect(page.locator("#toasts")).to_contain_text("You have corrected the answer")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(first.pk))
    assert not Vote.objects.exists()

    page.get_by_role("button", name="Save correction").click()
    expect(page.locator("#item")).to_have_attribute("data-completion", str(second.pk))
    expect(page.locator("#last")).to_contain_text("Your last vote: Down")
    written = Completion.objects.get(version="edited")
    assert written.text == f"{first.text} With a reason."
    assert verdicts() == {first.pk: "down", written.pk: "up"}

    # opened and left as it was: a verdict as any other
    page.keyboard.press("e")
    field = page.locator("#correction")
    expect(field).to_have_value(second.text)
    field.press("Escape")
    page.keyboard.press("u")
    expect(page.locator("#item")).to_have_attribute("data-completion", str(third.pk))
    wait_until(lambda: verdicts().get(second.pk) == "up")
