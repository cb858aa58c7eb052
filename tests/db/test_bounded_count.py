"""Pages count up to a limit, so that a project of a million rows opens like a small one."""

import re
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.db import bounded_count
from feedback_app.feedback.examples import listing
from feedback_app.feedback.models import Project, Source, Verdict
from feedback_app.feedback.projects import views as projects_views
from feedback_app.feedback.prompts import sampling_panel
from feedback_app.feedback.templatetags import display
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the limit so that four rows exceed it."""
    monkeypatch.setattr(bounded_count, "COUNTED", 3)
    monkeypatch.setattr(display, "COUNTED", 3)
    monkeypatch.setattr(projects_views, "LISTED", 3)
    monkeypatch.setattr(sampling_panel, "LISTED", 3)
    monkeypatch.setattr(listing, "WINDOW", 3)


@pytest.mark.parametrize(("rows", "words"), [(3, "3 to judge"), (5, "more than 3 to judge")])
def test_home_counts_up_to_its_limit(
    rows: int,
    words: str,
    admin: User,
    as_user: Callable[[User], Client],
    make_completions: MakeCompletions,
) -> None:
    first, *_ = make_completions(rows + 1)
    vote_cast(completion=first, verdict=Verdict.DOWN, by=admin, source=Source.ANNOTATE)

    page = as_user(admin).get("/?all=1").content.decode()

    assert f">{words}<" in page
    assert "0 up" in page
    assert "1 down" in page


def test_examples_are_counted_and_listed_up_to_the_limit(
    project: Project,
    admin: User,
    as_user: Callable[[User], Client],
    make_completions: MakeCompletions,
) -> None:
    for number, completion in enumerate(make_completions(5)):
        verdict = Verdict.UP if number else Verdict.DOWN
        vote_cast(completion=completion, verdict=verdict, by=admin, source=Source.ANNOTATE)
    project.examples.update(split="train")
    project.examples.filter(desirable=False).update(weight=0.5)
    url, client = reverse("examples", args=["bot"]), as_user(admin)

    def page(**query: str) -> str:
        # as a browser shows it: line breaks become spaces
        return " ".join(client.get(url, query).content.decode().split())

    assert "<dt>Training, up</dt><dd>more than 3</dd>" in page()
    assert "<dt>Training, down</dt><dd>1</dd>" in page()
    assert "More than 3 examples: the newest 3 are listed" in page()
    assert "More than 3 examples: the oldest 3 are listed" in page(sort="oldest")
    # other orders sort the newest within the window, so the first answer is not among them
    shown = {sort: answers(page(sort=sort)) for sort in ("newest", "oldest", "weight", "votes")}
    assert shown == {
        "newest": [4, 3, 2],
        "oldest": [0, 1, 2],
        "weight": [4, 3, 2],
        "votes": [4, 3, 2],
    }
    assert answers(page(label="down", sort="weight")) == []
    assert answers(page(label="down")) == [0]


def answers(page: str) -> list[int]:
    """Return the numbers of the answers on a page."""
    return [int(n) for n in re.findall(r'small muted">Answer number (\d+)\.', page)]


def test_settings_count_up_to_their_limit(
    project: Project,
    admin: User,
    as_user: Callable[[User], Client],
    make_completions: MakeCompletions,
) -> None:
    make_completions(5)

    answer = as_user(admin).get(reverse("project-settings", args=["bot"]))
    page = " ".join(answer.content.decode().split())

    assert "More than 3 prompts, more than 3 answers in the annotation queue" in page
    assert bounded_count.counted(project.prompts.all()) == 4
