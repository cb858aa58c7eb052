"""The up-rates of versions, raw and representative."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.figures import services as figures
from feedback_app.feedback.models import Completion, Project, Source, Verdict, Vote
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.serving.demo.generation import user_group_of
from feedback_app.serving.models import ShareVisitor
from feedback_app.serving.releases.figures import (
    GROUPS,
    cells_of,
    counts_by_version,
    up_rates,
    up_rates_count,
)
from feedback_app.serving.share_links.services import link_create
from tests.conftest import prompts_make
from tests.serving.project_home.test_history import released

pytestmark = pytest.mark.django_db


def answers(
    project: Project, count: int, *, source: Source, group: str, version: str = "base"
) -> list[Completion]:
    return [
        completion_create(
            project=project,
            prompt=prompt,
            answer=Answer(f"An answer to {group}.", version, "stop", None, None),
            source=source,
            user_group=group,
        )
        for prompt in prompts_make(project, [f"{source} {group} {n}" for n in range(count)])
    ]


def vote(completions: list[Completion], *, ups: int, each: int = 1) -> None:
    """Vote on these answers, each person on `each` of them; the first `ups` votes are up."""
    people: list[User] = []
    for number, completion in enumerate(completions):
        if number % each == 0:
            people.append(User.objects.create_service(name="reader"))
        Vote.objects.create(
            project=completion.project,
            completion=completion,
            user=people[-1],
            source=completion.source,
            verdict=Verdict.UP if number < ups else Verdict.DOWN,
        )


@pytest.fixture
def lopsided(project: Project) -> Project:
    """The API's free users are unhappy and vote on every answer; others vote on one in ten."""
    vote(answers(project, 20, source=Source.API, group="free"), ups=2)
    vote(answers(project, 100, source=Source.API, group="paid")[:10], ups=9)
    vote(answers(project, 100, source=Source.DEMO, group="viewer")[:10], ups=8)
    return project


def test_representative_rate_weights_groups_by_their_answers(lopsided: Project) -> None:
    rate = up_rates(lopsided).by_version["base"]

    assert (rate.ups, rate.votes) == (19, 40)
    assert rate.representative is not None
    # the groups' own rates, by answers: (20 · 0.1 + 100 · 0.9 + 100 · 0.8) / 220 = 78 %
    assert 0.65 < rate.representative.share < 0.8
    assert rate.representative.low < 0.78 < rate.representative.high


def test_pages_show_the_representative_rate_beside_the_raw_one(
    lopsided: Project, admin: User, as_user: Any
) -> None:
    client: Client = as_user(admin)
    for name in ("project-home", "releases"):
        text = client.get(reverse(name, args=[lopsided.slug])).content.decode()
        assert "up of 40" in text
        assert "representative <strong>7" in text
        assert "Each channel and user group counts by the answers it got" in text


def test_timeline_shows_when_a_version_was_live_as_a_range(
    voted_project: Project, admin: User, as_user: Any
) -> None:
    released(voted_project, 1, days_ago=3, until=1)
    ended = voted_project.releases.get()
    assert ended.until is not None

    text = as_user(admin).get(reverse("releases", args=["bot"])).content.decode()

    since, until = ended.since.isoformat(), ended.until.isoformat()
    assert f'<time datetime="{since}" data-until="{until}">' in text


def test_annotators_alone_have_no_representative_rate(
    project: Project, annotator: User, make_completions: Any
) -> None:
    for completion in make_completions(3):
        Vote.objects.create(
            project=project,
            completion=completion,
            user=annotator,
            source=Source.ANNOTATE,
            verdict=Verdict.UP,
        )

    assert up_rates(project).by_version["base"].representative is None


def test_large_project_shows_what_a_worker_has_counted(
    lopsided: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures.bounded_count, "COUNTED", 100)  # 40 votes, 220 answers

    assert not up_rates(lopsided).known
    [due] = figures.figures_due("version_rates")
    assert figures.figures_count(pk=due.pk, count=up_rates_count)
    rates = up_rates(lopsided)
    assert rates.known
    assert rates.by_version["base"].representative is not None


def test_many_groups_are_few_cells(project: Project) -> None:
    for number in range(GROUPS + 5):
        vote(answers(project, 2, source=Source.API, group=f"plan {number}"), ups=1)

    cells = cells_of(counts_by_version(project)["base"])

    assert len(cells) == GROUPS + 1
    assert sum(cell.answers for cell in cells) == 2 * (GROUPS + 5)
    assert sum(cell.votes for cell in cells) == 2 * (GROUPS + 5)


def test_user_group_is_the_role_or_the_link(project: Project, admin: User, viewer: User) -> None:
    link, _ = link_create(
        project=project,
        label="Testers",
        choice="live",
        days=1,
        messages_limit=10,
        messages_each=5,
        votes_limit=10,
        by=admin,
    )
    visitor = User.objects.create_service(name="visitor")
    ShareVisitor.objects.create(link=link, user=visitor)
    nobody = User.objects.create_service(name="nobody")

    assert user_group_of(project=project, user_id=viewer.pk) == Role.VIEWER
    assert user_group_of(project=project, user_id=visitor.pk) == f"link {link.pk}"
    assert user_group_of(project=project, user_id=nobody.pk) == ""
