"""From a thumb to a better live model by hand: all processes real, on a tiny model."""

import re
from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Source, Verdict, Vote
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.localstack.stack import Stack
from feedback_app.serving.demo.generation import EMPTY_ANSWER
from feedback_app.serving.models import Comparison, Conversation, Turn
from feedback_app.training.gate.services import gate_settings_save
from feedback_app.training.models import Adapter, Run
from tests.browser.conftest import NewPage
from tests.engines import wait_until
from tests.stacks import TINY
from tests.training.gate.reports import SMALL_GATE

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

RUN_SECONDS = 900_000  # milliseconds to wait for a run on a loaded machine

Make = Callable[..., list[Completion]]


@pytest.fixture
def tiny_project(
    stack: Stack, project: Project, annotator: User, make_completions: Make
) -> Project:
    """Use the stack's model, sixty votes, and three answers in the queue."""
    Project.objects.filter(pk=project.pk).update(base_model=TINY, max_tokens=16)
    answers = make_completions(63)
    for number, completion in enumerate(answers[:60]):
        verdict = Verdict.UP if number % 3 == 0 else Verdict.DOWN
        vote_cast(completion=completion, verdict=verdict, by=annotator, source=Source.ANNOTATE)
    gate_settings_save(project=project, settings=SMALL_GATE, by=annotator)
    return Project.objects.get(pk=project.pk)


def say(page: Page, text: str) -> None:
    page.wait_for_load_state()  # before the scripts run, Enter starts a new line
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def finished_replies(page: Page, count: int) -> None:
    """Wait for this many answers with thumbs; retry if the random model answers with no text."""
    thumbs, nothing = page.locator(".reply .thumbs"), page.get_by_text(EMPTY_ANSWER)
    for _ in range(5):
        try:
            expect(thumbs.nth(count - 1).or_(nothing.last)).to_be_visible()
        except AssertionError as error:  # show the page's text in the failure
            error.add_note(f"{page.url}: {page.locator('main').inner_text()}")
            raise
        if not nothing.count():
            break
        page.get_by_role("button", name="Try again").click()
    expect(thumbs).to_have_count(count)


def test_thumb_train_release_demo(
    new_page: NewPage, stack: Stack, tiny_project: Project, admin: User, annotator: User
) -> None:
    slug = tiny_project.slug

    # 1. thumbs by keys
    desk = new_page(annotator, base_url=stack.url)
    desk.goto(reverse("annotate", args=[slug]))
    for key, left in (("u", 62), ("d", 61)):
        desk.keyboard.press(key)
        expect(desk.locator(".today")).to_contain_text(f"{124 - left - 1} of")
    wait_until(lambda: Vote.objects.count() == 62, what="two more votes")

    # 2. Train now, with the page open
    page = new_page(admin, base_url=stack.url)
    page.goto(reverse("runs", args=[slug]))
    page.get_by_text("Advanced settings").click()
    page.get_by_label("Epochs").fill("2")
    page.get_by_label("Batch", exact=True).fill("8")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Train now").click()
    expect(page.get_by_role("heading", name="Run 1")).to_be_visible()
    expect(page.locator("#charts canvas").first).to_be_visible(timeout=RUN_SECONDS)

    # 3. the gate's table, then the release
    expect(page.get_by_role("heading", name="Gate")).to_be_visible(timeout=RUN_SECONDS)
    assert Run.objects.get().status == Run.Status.SUCCEEDED
    name = Adapter.objects.get().name
    expect(page.get_by_role("columnheader", name=name)).to_be_visible()
    reason = page.get_by_label("Reason for override")
    if reason.count():  # a tiny random model may lose the gate
        reason.fill("a test")
    page.get_by_role("button", name=f"Release {name}").click()
    expect(page.locator(".toast")).to_contain_text(f"{name} is live now")

    # 4. the demo answers with the adapter, and its thumbs are votes
    page.goto(reverse("demo", args=[slug]))
    say(page, "Where is Paris?")
    finished_replies(page, 1)
    expect(page.locator(".reply-tools")).to_contain_text(name)
    page.get_by_role("button", name="Up", exact=True).click()
    expect(page.get_by_role("button", name="Up", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    vote = Vote.objects.get(source="demo")
    assert (vote.verdict, vote.user, vote.completion.version) == ("up", admin, name)
    assert vote.completion.example.desirable

    # base can be picked (in a new chat: the tiny model's context is full after one answer)
    page.get_by_role("button", name="New").click()
    page.get_by_label("Answers come from").select_option("base")
    expect(page.locator("#hello")).to_contain_text("Talk to base")
    say(page, "And now?")
    finished_replies(page, 1)
    assert Turn.objects.order_by("pk").last().completion.version == "base"

    # 5. side by side, blind, with keys
    page.get_by_role("link", name="Compare").click()
    page.wait_for_url(f"**{reverse('compare', args=[slug])}")  # until its scripts have run
    page.get_by_label("Your question").fill("Where is Rome?")
    page.keyboard.press("Enter")
    better, again = (page.get_by_role("button", name=n) for n in ("A is better", "Try again"))

    def answered() -> bool:
        # without an answer there is no such button, and `is_enabled` would wait for it
        return again.count() > 0 or (better.count() > 0 and better.is_enabled())

    wait_until(answered, what="two answers")
    while again.count():  # a random model may give an empty answer
        again.first.click()
        wait_until(answered, what="two answers")
    expect(page.locator("#duel")).not_to_contain_text(name)
    page.keyboard.press("1")
    expect(page.locator("#duel")).to_contain_text(name)
    comparison = Comparison.objects.get()
    assert comparison.choice == "left"
    votes = dict(Vote.objects.filter(source="demo").values_list("completion", "verdict"))
    assert (votes[comparison.left_id], votes[comparison.right_id]) == ("up", "down")


@pytest.mark.long
def test_run_can_be_cancelled_while_running(
    new_page: NewPage, stack: Stack, tiny_project: Project, admin: User
) -> None:
    page = new_page(admin, base_url=stack.url)
    page.goto(reverse("runs", args=[tiny_project.slug]))
    page.get_by_text("Advanced settings").click()
    page.get_by_label("Epochs").fill("20")
    page.get_by_label("Batch", exact=True).fill("2")
    page.get_by_label("KL brake").fill("10")
    page.get_by_role("button", name="Train now").click()
    expect(page.locator("#charts canvas").first).to_be_visible(timeout=RUN_SECONDS)

    page.get_by_role("button", name="Cancel").click()

    expect(page.locator("#run-title")).to_contain_text("Cancelled")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert not Adapter.objects.exists()


def test_demo_streams_stops_and_retries(
    new_page: NewPage, stack: Stack, tiny_project: Project, admin: User
) -> None:
    page = new_page(admin, base_url=stack.url)
    page.goto(reverse("demo", args=[tiny_project.slug]))

    # the first message creates a conversation
    say(page, "Tell me about bread.")
    finished_replies(page, 1)
    conversation = Conversation.objects.get()
    assert page.url.endswith(f"/c/{conversation.pk}/")

    # stop at the first piece, in a new chat: the tiny model's context is full after one answer
    page.get_by_role("button", name="New").click()
    expect(page.locator("#hello")).to_be_visible()
    page.evaluate(
        """() => new MutationObserver(() => {
            if (document.querySelector(".reply .raw")?.textContent)
                document.getElementById("stop").click();
        }).observe(document.getElementById("talk"), {subtree: true, childList: true})"""
    )
    say(page, "Tell me a long story.")
    finished_replies(page, 1)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    turn = Turn.objects.get(user_message="Tell me a long story.")
    kept = turn.completion
    assert kept is not None
    assert kept.text

    # another answer, and another question, are other branches
    page.reload()
    page.get_by_role("button", name="Regenerate").click()
    another_reply(page, turn, kept)
    expect(page.get_by_text("2/2")).to_be_visible()
    page.get_by_label("Your message").focus()
    page.keyboard.press("ArrowUp")
    page.get_by_label(re.compile("Edit your message")).fill("Tell me a short story.")
    page.keyboard.press("Enter")
    expect(page.locator(".bubble")).to_have_text("Tell me a short story.")
    finished_replies(page, 1)
    assert last_shown(turn).user_message == "Tell me a short story."
    page.get_by_role("button", name="Earlier version").click()
    page.get_by_role("button", name="Earlier version").click()
    expect(page.locator(".bubble")).to_have_text("Tell me a long story.")
    assert last_shown(turn) == turn
    assert turn.conversation.turns.count() == 3


def another_reply(page: Page, turn: Turn, kept: Completion) -> None:
    """Wait for an answer that replaces `kept`; retry where the model gives an empty answer."""
    nothing = page.get_by_text(EMPTY_ANSWER)
    for _ in range(5):
        wait_until(
            lambda: answer_of(turn) not in (None, kept.pk) or nothing.count(),
            what="another answer",
        )
        if not nothing.count():
            break
        page.get_by_role("button", name="Try again").click()
        expect(nothing).to_have_count(0)
    finished_replies(page, 1)
    assert answer_of(turn) not in (None, kept.pk)


def answer_of(turn: Turn) -> int | None:
    """Return the answer that is shown in the turn's conversation."""
    return last_shown(turn).completion_id


def last_shown(turn: Turn) -> Turn:
    return turn.conversation.turns.shown()[0]


def test_demo_without_javascript(
    new_page: NewPage, stack: Stack, tiny_project: Project, admin: User
) -> None:
    page = new_page(admin, base_url=stack.url, java_script_enabled=False)
    page.goto(reverse("demo", args=[tiny_project.slug]))

    page.get_by_label("Your message").fill("Where is Paris?")
    page.get_by_role("button", name="Send").click()
    finished_replies(page, 1)
    page.get_by_role("button", name="Down").click()
    expect(page.get_by_role("button", name="Down")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Down").click()

    assert not Vote.objects.filter(source="demo").exists()
    assert Turn.objects.get().completion is not None
