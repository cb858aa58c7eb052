"""Blind pairs with the keyboard: one key a choice, then the next pair; undo brings it back."""

import re

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.models import PairVote
from tests.browser.conftest import NewPage
from tests.training.gate.people.world import people_run

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_keys_choose_skip_and_undo(
    new_page: NewPage, voted_project: Project, admin: User, annotator: User
) -> None:
    people_run(voted_project, admin, prompts=20)
    page = new_page(annotator)
    page.goto(reverse("annotate", args=["bot"]))
    page.get_by_role("link", name="Compare answers").click()
    waiting = page.get_by_text("for you.")
    keys = (("1", "left"), ("ArrowRight", "right"), ("0", "tie"), (" ", "tie"), ("s", "skip"))
    for number, (key, side) in enumerate(keys):
        expect(waiting).to_have_text(f"{20 - number} pairs wait for you.")
        page.wait_for_load_state()  # the keys work when the scripts have run
        page.keyboard.press(key)
        expect(waiting).to_have_text(f"{19 - number} pairs wait for you.")
        assert PairVote.objects.order_by("pk").last().side == side  # type: ignore[union-attr]
    page.wait_for_load_state()
    page.keyboard.press("z")
    expect(page).to_have_url(re.compile(r"/pairs/\d+/$"))
    expect(waiting).to_have_text("16 pairs wait for you.")
    assert PairVote.objects.count() == 4
    page.wait_for_load_state()
    page.keyboard.press("2")
    expect(waiting).to_have_text("15 pairs wait for you.")
    assert PairVote.objects.count() == 5
