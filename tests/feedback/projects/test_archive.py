"""Archived projects: read-only, out of the lists, and restorable."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import NoReverseMatch, reverse

from feedback_app.accounts.models import AuditEvent, Role, Scope, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import ImportJob, Lease, Project, Sampling, Vote
from feedback_app.feedback.projects.archive import project_archive, project_restore
from feedback_app.feedback.prompts.completions import sampling_request
from feedback_app.feedback.templatetags.display import TABS
from feedback_app.feedback.tokens.services import token_create
from feedback_app.serving import tasks as serving_tasks
from feedback_app.serving.models import TrafficSplit
from feedback_app.serving.share_links.services import link_create
from feedback_app.training.runs.services import run_request
from feedback_app.training.schedules.services import schedule_set, schedules_run
from feedback_app.web.errors import UserError
from tests.conftest import MakeCompletions, hand_out
from tests.serving.project_home.test_history import released

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
READ_ONLY = "This project is archived"


@pytest.fixture
def archived(voted_project: Project, admin: User) -> Project:
    project_archive(project=voted_project, by=admin)
    return Project.objects.get(pk=voted_project.pk)


def test_only_owners_archive_and_restore(
    voted_project: Project, admin: User, viewer: User, as_user: As
) -> None:
    second = User.objects.create_user("second@example.com")
    member_set(project=voted_project, user=second, role=Role.ADMIN)
    archive, restore = (
        reverse(name, args=[voted_project.slug]) for name in ("project-archive", "project-restore")
    )
    settings_page = reverse("project-settings", args=[voted_project.slug])
    assert archive not in as_user(second).get(settings_page).content.decode()
    assert as_user(second).post(archive).status_code == 403

    page = as_user(admin).post(archive, follow=True).content.decode()
    assert "is archived. Owners can restore it." in page
    voted_project.refresh_from_db()
    assert voted_project.archived_at is not None
    assert as_user(second).post(restore).status_code == 403

    page = as_user(admin).post(restore, follow=True).content.decode()
    assert "is restored." in page
    voted_project.refresh_from_db()
    assert voted_project.archived_at is None
    actions = AuditEvent.objects.filter(project=voted_project).values_list("action", flat=True)
    assert [name for name in actions if "archive" in name or "restore" in name] == [
        "project.archive",
        "project.restore",
    ]


def test_pages_can_be_read_and_say_so(archived: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    for name in ("project-home", "examples", "runs", "releases", "quality", "project-settings"):
        page = client.get(reverse(name, args=[archived.slug]))
        assert page.status_code == 200
        # which would answer 403
        assert f'href="{reverse("annotate", args=[archived.slug])}' not in page.content.decode()
        assert "it is read-only" in page.content.decode()
        assert reverse("project-restore", args=[archived.slug]) in page.content.decode()


class Forms(HTMLParser):
    """The forms of a page that post: where to, and whether something in them can be used."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.usable: dict[str, bool] = {}
        self._action: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._action = given.get("action") if given.get("method") == "post" else None
            if self._action:
                self.usable.setdefault(self._action, False)
        elif self._action and tag in ("button", "input", "select", "textarea"):
            self.usable[self._action] |= "disabled" not in given

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._action = None


@pytest.mark.parametrize("role", [Role.OWNER, Role.ANNOTATOR])
def test_forms_are_disabled_where_they_would_be_refused(
    archived: Project, role: Role, as_user: As
) -> None:
    person = User.objects.create_user("person@example.com")
    member_set(project=archived, user=person, role=role)
    client = as_user(person)
    place = f"/projects/{archived.slug}/", f"/demo/{archived.slug}/"
    usable: dict[str, bool] = {}
    for name in {name for tab in TABS for name in tab.pages}:
        try:
            page = client.get(reverse(name, args=[archived.slug]))
        except NoReverseMatch:
            continue  # of a run, a webhook, …
        if page.status_code == 200:
            usable |= Forms(page.content.decode()).usable
    usable = {url: each for url, each in usable.items() if url.startswith(place)}
    assert not all(usable.values())
    for url, each in usable.items():
        # nothing is changed: no view takes this field
        answer = client.post(url, {"no-such-field": "1"})
        refused = answer.status_code == 403 and READ_ONLY in answer.content.decode()
        assert refused != each, url


def test_disabled_form_keeps_its_page_and_says_why(
    archived: Project, admin: User, as_user: As
) -> None:
    page = as_user(admin).get(reverse("project-settings", args=[archived.slug])).content.decode()
    assert f'title="{READ_ONLY}' in page
    assert page.count("disabled disabled") == 0
    # reading goes on: filters and links are as before
    examples = as_user(admin).get(reverse("examples", args=[archived.slug])).content.decode()
    filters = re.findall(r'<form[^>]*method="get".*?</form>', examples, re.DOTALL)
    assert filters
    assert " disabled" not in "".join(filters)


def test_page_says_who_can_restore_the_project(
    archived: Project, admin: User, annotator: User, as_user: As
) -> None:
    second = User.objects.create_user("second@example.com")
    member_set(project=archived, user=second, role=Role.ADMIN)
    url = reverse("demo", args=[archived.slug])
    assert (
        f"Its owners can restore it:\n      {admin}." in as_user(second).get(url).content.decode()
    )
    # annotators do not see who is a member
    page = as_user(annotator).get(url).content.decode()
    assert "Its owners can restore it." in page
    assert str(admin) not in page
    assert reverse("annotate", args=[archived.slug]) not in page


def test_nothing_is_handed_out_or_voted_on(
    archived: Project, annotator: User, make_completions: MakeCompletions, as_user: As
) -> None:
    [completion] = make_completions()
    hand_out(annotator, completion)
    client = as_user(annotator)

    desk = client.get(reverse("annotate", args=[archived.slug]))
    polled = client.get(reverse("annotate-status", args=[archived.slug]))
    vote = client.post(reverse("vote", args=[archived.slug, completion.pk]), {"verdict": "up"})

    for answer in (desk, polled, vote):
        assert answer.status_code == 403
        assert READ_ONLY in answer.content.decode()
    assert not Vote.objects.filter(completion=completion).exists()
    assert list(Lease.objects.values_list("completion", flat=True)) == [completion.pk]


def test_vote_of_an_open_page_is_told_why_it_is_refused(
    archived: Project, annotator: User, make_completions: MakeCompletions, as_user: As
) -> None:
    [completion] = make_completions()
    hand_out(annotator, completion)
    url = reverse("vote", args=[archived.slug, completion.pk])

    refused = as_user(annotator).post(url, {"verdict": "up"}, headers={"HX-Request": "true"})
    assert (refused.status_code, "toast" in refused["HX-Trigger"]) == (403, True)
    assert refused.content.decode().startswith(READ_ONLY)

    # a token that has expired: the browser keeps the vote and sends it again
    client = Client(enforce_csrf_checks=True)
    client.force_login(annotator)
    expired = client.post(url, {"verdict": "up"}, headers={"HX-Request": "true"})
    assert (expired.status_code, expired.has_header("HX-Trigger")) == (403, False)


def test_runs_by_hand_and_by_schedule_wait(archived: Project, admin: User) -> None:
    schedule_set(
        project=archived,
        by=admin,
        enabled=True,
        min_new_examples=1,
        min_hours=0,
        auto_release=False,
    )
    with pytest.raises(UserError, match=READ_ONLY):
        run_request(project=archived, by=admin)
    assert schedules_run() == []

    project_restore(project=archived, by=admin)
    assert len(schedules_run()) == 1


def test_waiting_sampling_ends(project: Project, admin: User) -> None:
    sampling = sampling_request(project=project, answers_per_prompt=1)
    project_archive(project=project, by=admin)
    sampling.refresh_from_db()
    assert sampling.status == Sampling.Status.CANCELLED


def test_waiting_import_ends(project: Project, admin: User, tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("rows")
    job = ImportJob.objects.create(
        project=project,
        by=admin,
        name="votes.csv",
        path=str(tmp_path / "votes.csv"),
        uploaded=True,
        status=ImportJob.Status.QUEUED,
    )
    project_archive(project=project, by=admin)
    job.refresh_from_db()
    assert job.status == ImportJob.Status.CANCELLED
    assert not list(tmp_path.iterdir())


def test_command_imports_nothing(archived: Project, tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text('{"prompt": "Q", "completion": "A", "label": true}\n')
    with pytest.raises(CommandError, match=READ_ONLY):
        call_command("import_examples", file, project=archived.slug)
    assert not archived.import_jobs.exists()


def test_tokens_read_and_do_not_write(archived: Project, admin: User, client: Client) -> None:
    _, secret = token_create(project=archived, name="Shop", scopes=list(Scope), by=admin)
    headers = {"Authorization": f"Bearer {secret}"}

    read = client.get(f"/api/v1/projects/{archived.slug}/prompts", headers=headers)
    written = client.post(
        f"/api/v1/projects/{archived.slug}/prompts",
        {"prompts": [{"messages": [{"role": "user", "content": "Why?"}]}]},
        content_type="application/json",
        headers=headers,
    )

    assert read.status_code == 200
    assert written.status_code == 403
    assert READ_ONLY in written.json()["error"]["message"]


def test_share_links_are_closed_until_it_is_restored(
    voted_project: Project, admin: User, client: Client
) -> None:
    _, secret = link_create(
        project=voted_project,
        label="A customer",
        choice="live",
        days=1,
        messages_limit=10,
        messages_each=5,
        votes_limit=10,
        by=admin,
    )
    url = reverse("shared", args=[secret])
    assert client.get(url).status_code == 200
    project_archive(project=voted_project, by=admin)
    assert client.get(url).status_code == 404
    project_restore(project=voted_project, by=admin)
    assert client.get(url).status_code == 200


def test_access_can_still_be_taken_away(
    archived: Project, admin: User, annotator: User, as_user: As
) -> None:
    token, _ = token_create(project=archived, name="Shop", scopes=list(Scope), by=admin)
    as_user(admin).post(reverse("token-revoke", args=[archived.slug, token.pk]))
    token.refresh_from_db()
    assert token.revoked_at is not None
    as_user(annotator).post(reverse("me-leave", args=[archived.slug]))
    assert not archived.memberships.filter(user=annotator).exists()


def test_list_of_projects_shows_archived_ones_apart(
    archived: Project, admin: User, annotator: User, as_user: As
) -> None:
    page = as_user(admin).get("/?all=1").content.decode()
    assert "All your projects are archived." in page
    assert page.index("Archived</h2>") < page.index(archived.name)
    # the only project is archived: the list, not an endless redirect
    assert as_user(annotator).get("/").status_code == 200


def test_traffic_split_of_an_archived_project_promotes_nothing(
    voted_project: Project, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = released(voted_project, 1, days_ago=2, until=1)
    split = TrafficSplit.objects.create(
        project=voted_project, candidate=candidate, live_version="base", percent=10
    )
    watched: list[int] = []
    task = serving_tasks.watch_split
    monkeypatch.setattr(task, "apply_async", lambda ids, **_: watched.extend(ids))
    serving_tasks.dispatch()
    assert watched == [split.pk]
    project_archive(project=voted_project, by=admin)
    serving_tasks.dispatch()
    assert watched == [split.pk]
