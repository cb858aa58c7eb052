"""Pages of the annotation desk, the examples and the settings, by browser and by plain form."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Completion, Project, Sampling, Source, Verdict, Vote
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.completions import sampling_request
from feedback_app.feedback.queue.services import items_hand_out
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import hand_out

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
Make = Callable[..., list[Completion]]
HTMX = {"HX-Request": "true", "HX-Target": "stage"}


def desk(project: Project) -> str:
    return reverse("annotate", args=[project.slug])


def vote_url(completion: Completion) -> str:
    return reverse("vote", args=[completion.project.slug, completion.pk])


# -- access


@pytest.mark.slow
@pytest.mark.parametrize("page", ["annotate", "examples", "project-settings", "runs", "releases"])
def test_project_pages_non_member_gets_404(
    page: str, project: Project, outsider: User, as_user: As
) -> None:
    assert as_user(outsider).get(reverse(page, args=[project.slug])).status_code == 404


@pytest.mark.parametrize("page", ["examples", "project-settings", "runs", "releases"])
def test_admin_pages_annotator_gets_403(
    page: str, project: Project, annotator: User, as_user: As
) -> None:
    answer = as_user(annotator).get(reverse(page, args=[project.slug]))

    assert answer.status_code == 403
    assert b"for the role admin" in answer.content


def test_every_project_page_signed_out_goes_to_sign_in(project: Project, client: Client) -> None:
    for page in ("annotate", "examples", "project-settings", "runs", "releases", "demo"):
        answer = client.get(reverse(page, args=[project.slug]))
        assert answer.status_code == 302
        assert answer["Location"].startswith("/accounts/login/")


def test_vote_viewer_gets_403(
    project: Project, viewer: User, as_user: As, make_completions: Make
) -> None:
    [completion] = make_completions()

    answer = as_user(viewer).post(vote_url(completion), {"verdict": "up"})

    assert answer.status_code == 403
    assert not Vote.objects.exists()


def test_vote_on_completion_of_another_project_is_404(
    annotator: User, outsider: User, as_user: As, make_completions: Make, project: Project
) -> None:
    other = Project.objects.get(slug="other")
    [foreign] = make_completions(of=other)
    url = reverse("vote", args=[project.slug, foreign.pk])

    assert as_user(annotator).post(url, {"verdict": "up"}).status_code == 404
    assert as_user(outsider).post(url, {"verdict": "up"}).status_code == 404
    assert not Vote.objects.exists()


# -- the hotkeys dialog


def test_keys_dialog_shows_the_reasons_and_guidelines_of_the_project(
    project: Project, annotator: User, as_user: As
) -> None:
    project.reasons = {
        "up": [{"key": "kind", "label": "Kind <3"}, {"key": "calm", "label": "Calm"}],
        "down": [{"key": "rude", "label": "Rude"}],
    }
    project.save()
    client = as_user(annotator)

    page = client.get(desk(project)).content.decode()
    dialog = page[page.index('<dialog id="keys"') : page.index("</dialog>")]

    assert "Up: Kind &lt;3, Calm" in dialog
    assert "Down: Rude" in dialog
    assert reverse("guidelines", args=[project.slug]) in dialog
    assert "on the point" not in dialog, "a reason of the starter project"

    project.reasons, project.guidelines = {}, ""
    project.save()
    page = client.get(desk(project)).content.decode()
    dialog = page[page.index('<dialog id="keys"') : page.index("</dialog>")]
    assert "<dd>Up</dd>" in dialog
    assert reverse("guidelines", args=[project.slug]) not in dialog


# -- home


@pytest.mark.parametrize(
    ("role", "page"),
    [(Role.ADMIN, "project-home"), (Role.ANNOTATOR, "annotate"), (Role.VIEWER, "demo")],
)
def test_home_with_one_project_redirects_to_the_page_of_the_role(
    role: Role, page: str, project: Project, as_user: As
) -> None:
    person = User.objects.create_user("one@example.com")
    member_set(project=project, user=person, role=role)

    assert as_user(person).get("/")["Location"] == reverse(page, args=[project.slug])


def test_home_without_project_names_a_contact(as_user: As) -> None:
    answer = as_user(User.objects.create_user("new@example.com")).get("/")

    assert b"Ask an owner or admin" in answer.content


def test_home_several_projects_are_listed_in_three_queries(
    admin: User,
    project: Project,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    for number in range(5):
        project_create(slug=f"p{number}", name=f"P{number}", base_model="m", owner=admin)
    client = as_user(admin)

    with django_assert_max_num_queries(3):
        answer = client.get("/")

    assert answer.content.count(b"card project") == 6


# -- the desk


def test_annotate_shows_one_item_and_prefetches_the_next(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    first, second = make_completions(2)

    page = as_user(annotator).get(desk(project)).content.decode()

    shown, held = page.split('<template id="prefetched">')
    assert f'data-completion="{first.pk}"' in shown
    assert 'data-finish="stop"' in shown
    assert f'data-completion="{second.pk}"' in held
    assert "Short" in page  # the guidelines


def test_annotate_escapes_hostile_item(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    [completion] = make_completions()
    hostile = '<script>alert(1)</script><b hx-get="/" style="color:red">x</b>[a](javascript:x)'
    Completion.objects.filter(pk=completion.pk).update(text=hostile)

    page = as_user(annotator).get(desk(project)).content.decode()

    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert '<b hx-get="/"' not in page
    assert 'href="javascript:' not in page


def test_annotate_one_megabyte_without_a_space_is_shown(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    [completion] = make_completions()
    Completion.objects.filter(pk=completion.pk).update(text="a" * 1_000_000)

    answer = as_user(annotator).get(desk(project))

    assert b"more characters are not shown" in answer.content


def test_vote_plain_form_redirects_to_the_desk(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    first, second = make_completions(2)
    hand_out(annotator, first)

    answer = as_user(annotator).post(
        vote_url(first), {"verdict": "down", "reasons": ["long", "wrong"]}, follow=True
    )

    vote = Vote.objects.get()
    assert (vote.verdict, vote.reasons, vote.source) == ("down", ["long", "wrong"], "annotate")
    assert vote.completion.example.desirable is False
    assert f'data-completion="{second.pk}"' in answer.content.decode()


def test_vote_by_htmx_returns_the_next_item_and_the_history(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    first, second, third = make_completions(3)
    hand_out(annotator, first)

    answer = as_user(annotator).post(vote_url(first), {"verdict": "up"}, headers=HTMX)

    page = answer.content.decode()
    shown, held = page.split('<template id="prefetched">')
    assert f'data-completion="{second.pk}"' in shown
    assert f'data-completion="{third.pk}"' in held
    rows = page.split('<ul id="history-list" hx-swap-oob="afterbegin">')[1]
    assert rows.count("<li>") == 1, "the page already shows the earlier ones"
    assert "Question number 0?" in rows
    assert "<html" not in page


def test_changed_vote_returns_the_whole_history(
    annotator: User, as_user: As, make_completions: Make
) -> None:
    [completion, _] = make_completions(2)
    hand_out(annotator, completion)
    client = as_user(annotator)
    client.post(vote_url(completion), {"verdict": "up"}, headers=HTMX)

    page = client.post(vote_url(completion), {"verdict": "down"}, headers=HTMX).content.decode()

    # the page already shows the old row: an added row would duplicate it
    assert 'id="history" hx-swap-oob="true"' in page
    assert page.count("<li>") == 1


def test_verdict_of_a_second_tab_does_not_overwrite_the_first(
    annotator: User, as_user: As, make_completions: Make
) -> None:
    first, second, _ = make_completions(3)
    hand_out(annotator, first)
    client = as_user(annotator)
    client.post(vote_url(first), {"verdict": "up", "first": "on"}, headers=HTMX)
    other_tab = {"verdict": "down", "first": "on"}

    answer = client.post(vote_url(first), other_tab, headers=HTMX)

    assert Vote.objects.get().verdict == "up"
    toast = json.loads(answer["HX-Trigger"])["toast"]
    assert "You have already judged this answer Up" in toast["text"]
    assert toast["change"] == {"url": vote_url(first), "verdict": "down", "label": "Change to Down"}
    page = answer.content.decode()
    assert f'data-completion="{second.pk}"' in page
    assert "Change to down: Question number 0?" in page, "the history shows the verdict"
    # by a form without scripts, and by the browser's store of verdicts that were cast offline
    plain = client.post(vote_url(first), other_tab, follow=True).content.decode()
    assert "You have already judged this answer Up" in plain
    assert f'data-completion="{second.pk}"' in plain
    kept = client.post(vote_url(first), other_tab, headers=HTMX | {"HX-Target": "last"})
    assert kept.status_code == 422
    assert "You have already judged this answer Up" in kept.content.decode()
    assert Vote.objects.get().verdict == "up"
    # the same verdict again is no contradiction
    again = client.post(vote_url(first), {"verdict": "up", "first": "on"}, headers=HTMX)
    assert again.status_code == 200
    assert "HX-Trigger" not in again
    # and the toast's button, as the history's, does change it
    history = HTMX | {"HX-Target": "history"}
    assert client.post(vote_url(first), {"verdict": "down"}, headers=history).status_code == 200
    assert Vote.objects.get().verdict == "down"


def test_tab_gets_other_items_than_those_of_the_other_tabs(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    first, second, third, _ = make_completions(4)
    client = as_user(annotator)
    client.get(desk(project))
    other_tab = {"X-Elsewhere": f"{first.pk},{second.pk}"}

    page = client.get(desk(project), headers=HTMX | other_tab).content.decode()
    assert f'data-completion="{third.pk}"' in page.split("<template")[0]
    answer = client.post(vote_url(third), {"verdict": "up"}, headers=HTMX | other_tab)
    shown = answer.content.decode()
    assert f'data-completion="{first.pk}"' not in shown
    assert f'data-completion="{second.pk}"' not in shown

    for wrong in ("x", "1,,2", "9" * 30, ",".join(["1"] * 41)):
        refused = client.get(desk(project), headers=HTMX | {"X-Elsewhere": wrong})
        assert refused.status_code == 400, wrong


def test_vote_reasons_chips_can_be_cleared(
    annotator: User, as_user: As, make_completions: Make
) -> None:
    [completion] = make_completions()
    hand_out(annotator, completion)
    client = as_user(annotator)
    client.post(vote_url(completion), {"verdict": "down", "reasons": ["long"]})

    answer = client.post(
        vote_url(completion),
        {"verdict": "down", "chips": "on"},
        headers={"HX-Request": "true", "HX-Target": "last"},
    )

    assert answer.status_code == 204
    assert Vote.objects.get().reasons == []


@pytest.mark.parametrize(
    "extra",
    [{"user": "1"}, {"id": "7"}, {"source": "demo"}, {"weight": "9"}, {"completion": "3"}],
)
def test_vote_with_unknown_field_is_refused(
    extra: dict[str, str], annotator: User, as_user: As, make_completions: Make
) -> None:
    [completion] = make_completions()

    answer = as_user(annotator).post(vote_url(completion), {"verdict": "up", **extra})

    assert answer.status_code == 400
    assert b"Unknown fields" in answer.content
    assert not Vote.objects.exists()


@pytest.mark.parametrize(
    "body", [{}, {"verdict": "maybe"}, {"verdict": "up", "reasons": ["nonsense"]}]
)
def test_vote_bad_values_show_a_toast(
    body: dict[str, Any], annotator: User, as_user: As, make_completions: Make
) -> None:
    [completion] = make_completions()

    answer = as_user(annotator).post(vote_url(completion), body, headers=HTMX)

    assert answer.status_code == 422
    assert "toast" in answer["HX-Trigger"]
    assert not Vote.objects.exists()


def test_vote_without_csrf_token_is_refused(annotator: User, make_completions: Make) -> None:
    [completion] = make_completions()
    client = Client(enforce_csrf_checks=True)
    client.force_login(annotator)

    answer = client.post(vote_url(completion), {"verdict": "up"})

    assert answer.status_code == 403
    assert b"open for too long" in answer.content
    assert not Vote.objects.exists()


def test_vote_get_is_not_allowed(annotator: User, as_user: As, make_completions: Make) -> None:
    [completion] = make_completions()

    assert as_user(annotator).get(vote_url(completion)).status_code == 405


def test_vote_from_the_history_changes_it_in_place(
    annotator: User, as_user: As, make_completions: Make
) -> None:
    [completion] = make_completions()
    hand_out(annotator, completion)
    client = as_user(annotator)
    client.post(vote_url(completion), {"verdict": "down"})

    answer = client.post(
        vote_url(completion),
        {"verdict": "up"},
        headers={"HX-Request": "true", "HX-Target": "history"},
    )

    assert Vote.objects.get().verdict == "up"
    assert b"Change to Down" in answer.content


def test_undo_shows_the_item_again(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    first, _ = make_completions(2)
    hand_out(annotator, first)
    client = as_user(annotator)
    client.post(vote_url(first), {"verdict": "up"})

    answer = client.post(reverse("vote-undo", args=[project.slug, first.pk]), headers=HTMX)

    assert not Vote.objects.exists()
    shown = answer.content.decode().split("<template")[0]
    assert f'data-completion="{first.pk}"' in shown


def test_skip_with_flag_shows_the_next_item_and_offers_undo(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    first, second = make_completions(2)
    hand_out(annotator, first)
    client = as_user(annotator)

    answer = client.post(
        reverse("skip", args=[project.slug, first.pk]), {"flag": "on", "comment": ""}, headers=HTMX
    )

    first.refresh_from_db()
    assert first.flagged
    assert f'data-completion="{second.pk}"' in answer.content.decode()
    assert reverse("vote-undo", args=[project.slug, first.pk]) in answer["HX-Trigger"]


def test_annotate_empty_while_sampling_shows_progress(
    project: Project, annotator: User, as_user: As
) -> None:
    sampling = sampling_request(project=project)
    Sampling.objects.filter(pk=sampling.pk).update(status="running", total=10, done=3)
    client = as_user(annotator)

    page = client.get(desk(project)).content.decode()
    status = client.get(reverse("annotate-status", args=[project.slug]))

    assert "3 of 10 answers" in page
    assert 'hx-trigger="every 2s"' in page
    assert status.status_code == 200


def test_annotate_empty_while_others_hold_the_last_shows_when_leases_end(
    project: Project,
    annotator: User,
    second_annotator: User,
    as_user: As,
    make_completions: Make,
) -> None:
    make_completions(1)
    items_hand_out(project=project, by=second_annotator)

    page = as_user(annotator).get(desk(project)).content.decode()

    assert "Other people hold the last answers" in page
    assert "<time datetime=" in page


def test_annotate_all_done_stops_polling(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    [completion] = make_completions()
    client = as_user(annotator)
    vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)

    assert b"All done" in client.get(desk(project)).content
    assert client.get(reverse("annotate-status", args=[project.slug])).status_code == 286


def test_skipped_answers_are_named_and_can_be_shown_again(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    skipped, judged, flagged = make_completions(3)
    hand_out(annotator, skipped, judged, flagged)
    client = as_user(annotator)
    client.post(reverse("skip", args=["bot", skipped.pk]))
    client.post(reverse("skip", args=["bot", flagged.pk]), {"flag": "on"})
    client.post(vote_url(judged), {"verdict": "up"})

    page = " ".join(client.get(desk(project)).content.decode().split())

    assert "You have judged every answer" not in page
    assert "1 answer that you skipped still needs a vote" in page
    again = client.post(reverse("skips-undo", args=["bot"]), follow=True).content.decode()
    assert f'data-completion="{skipped.pk}"' in again
    assert f'data-completion="{flagged.pk}"' not in again
    client.post(vote_url(skipped), {"verdict": "up"})
    assert "You have judged every answer" in client.get(desk(project)).content.decode()


def test_annotate_status_with_an_item_reloads(
    project: Project, annotator: User, as_user: As, make_completions: Make
) -> None:
    make_completions(1)

    answer = as_user(annotator).get(reverse("annotate-status", args=[project.slug]))

    assert answer["HX-Refresh"] == "true"


def test_desk_queries_do_not_grow_with_votes(
    project: Project,
    annotator: User,
    as_user: As,
    make_completions: Make,
    django_assert_max_num_queries: Any,
) -> None:
    for completion in make_completions(30)[:15]:
        vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    client = as_user(annotator)
    client.get(desk(project))

    with django_assert_max_num_queries(13):
        client.get(desk(project))


def test_vote_queries_are_few_and_do_not_grow_with_votes(
    project: Project,
    annotator: User,
    as_user: As,
    make_completions: Make,
    django_assert_max_num_queries: Any,
) -> None:
    """Three queries for the user, two to hand out the item, one to write the vote (SQLite: six),
    three for the next items, one to commit, one for the counts, and occasionally one more."""
    most = 13 if connection.vendor == "postgresql" else 18
    completions = make_completions(30)
    client = as_user(annotator)
    client.get(desk(project))
    for completion in completions[:2] + completions[20:22]:
        with django_assert_max_num_queries(most):
            client.post(vote_url(completion), {"verdict": "up"}, headers=HTMX)
        for other in completions[2:20]:
            vote_cast(completion=other, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)


# -- examples


def test_examples_filters_and_keeps_them_in_the_links(
    voted_project: Project, admin: User, as_user: As
) -> None:
    url = reverse("examples", args=[voted_project.slug])

    page = as_user(admin).get(url, {"label": "down"}).content.decode()

    assert "40 examples" in " ".join(page.split())
    assert "Answer number 0." not in page


@pytest.mark.parametrize(("split", "count"), [("train", 43), ("validation", 5), ("test", 12)])
def test_examples_are_counted_and_filtered_by_split(
    voted_project: Project, admin: User, as_user: As, split: str, count: int
) -> None:
    url = reverse("examples", args=[voted_project.slug])

    page = as_user(admin).get(url, {"split": split}).content.decode()

    assert f"{count} examples" in " ".join(page.split())
    for name, label, number in (
        ("Training", "up", 15),
        ("Training", "down", 28),
        ("Validation", "up", 1),
        ("Validation", "down", 4),
        ("Test", "up", 4),
        ("Test", "down", 8),
    ):
        assert f"<dt>{name}, {label}</dt><dd>{number}</dd>" in page


@pytest.mark.slow
def test_examples_second_page_keeps_the_filter(
    voted_project: Project, admin: User, as_user: As
) -> None:
    url = reverse("examples", args=[voted_project.slug])

    page = as_user(admin).get(url, {"sort": "oldest"}).content.decode()

    assert "?sort=oldest&amp;page=2" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "query",
    [
        {"owner__password": "x"},
        {"_connector": "OR"},
        {"sort": "user__password"},
        {"label": "sideways"},
        {"split": "heldout"},
        {"version": "starter@9"},
        {"page": "-1"},
    ],
)
def test_examples_unknown_parameters_are_refused(
    query: dict[str, str], voted_project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).get(reverse("examples", args=[voted_project.slug]), query)

    assert answer.status_code == 400


@pytest.mark.slow
def test_examples_queries_do_not_grow_with_rows(
    voted_project: Project, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    client = as_user(admin)

    with django_assert_max_num_queries(12):
        client.get(reverse("examples", args=[voted_project.slug]))


# -- settings

SETTINGS = {
    "name": "Better bot",
    "system_prompt": "Be kind.",
    "guidelines": "Short.",
    "overlap": "2",
    "validation_percent": "15",
    "test_percent": "25",
    "queue_order": "newest",
    "max_tokens": "64",
    "temperature": "0.7",
    "top_p": "0.9",
    "reasoning": "read",
}


def test_settings_are_saved(project: Project, admin: User, as_user: As) -> None:
    url = reverse("project-settings", args=[project.slug])

    answer = as_user(admin).post(url, SETTINGS, follow=True)

    project.refresh_from_db()
    assert (project.name, project.overlap, project.max_tokens) == ("Better bot", 2, 64)
    assert (project.validation_percent, project.test_percent) == (15, 25)
    assert b"Saved." in answer.content


@pytest.mark.parametrize(
    "change",
    [
        {"slug": "mine"},
        {"live_version": "x"},
        {"overlap": "0"},
        {"temperature": "9"},
        {"validation_percent": "31"},
        {"test_percent": "4"},
    ],
)
def test_settings_with_errors_change_nothing(
    change: dict[str, str], project: Project, admin: User, as_user: As
) -> None:
    url = reverse("project-settings", args=[project.slug])

    answer = as_user(admin).post(url, SETTINGS | change)

    assert answer.status_code == 400
    project.refresh_from_db()
    assert (project.name, project.slug) == ("Support bot", "bot")


def test_sampling_is_requested_once(
    project: Project, admin: User, as_user: As, make_completions: Make
) -> None:
    make_completions(2)
    client = as_user(admin)
    url = reverse("sampling-new", args=[project.slug])

    client.post(url, {"answers_per_prompt": "2", "version": "base"})
    answer = client.post(url, {"answers_per_prompt": "2", "version": "base"}, follow=True)

    assert Sampling.objects.filter(status="queued").count() == 1
    assert b"A sampling is already running" in answer.content


def test_cancelled_sampling_cannot_be_claimed_or_cancelled_by_others(
    project: Project, admin: User, annotator: User, as_user: As, make_completions: Make
) -> None:
    make_completions(2)
    sampling = sampling_request(project=project)
    url = reverse("sampling-cancel", args=[project.slug, sampling.pk])

    assert as_user(annotator).post(url).status_code == 403
    as_user(admin).post(url)

    sampling.refresh_from_db()
    assert sampling.status == "cancelled"
    assert not Sampling.objects.filter(Sampling.claimable()).exists()


def test_failed_sampling_is_shown_to_admins_at_the_desk_and_in_the_examples(
    project: Project, admin: User, annotator: User, as_user: As, make_completions: Make
) -> None:
    make_completions(1)
    Sampling.objects.create(
        project=project, status="failed", total=4, error="4 of 4 answers are missing: no engine."
    )

    for name in ("annotate", "examples"):
        page = as_user(admin).get(reverse(name, args=[project.slug])).content.decode()
        assert "Sampling failed:</strong> 4 of 4 answers are missing: no engine." in page
        assert reverse("project-settings", args=[project.slug]) + "#answers-title" in page
    assert "Sampling failed" not in as_user(annotator).get(desk(project)).content.decode()

    sampling_request(project=project)
    assert "Sampling failed" not in as_user(admin).get(desk(project)).content.decode()


def test_sampling_that_waits_for_the_engine_says_why(
    project: Project, admin: User, annotator: User, as_user: As
) -> None:
    sampling = sampling_request(project=project)
    Sampling.objects.filter(pk=sampling.pk).update(error="4 of 4 answers are missing: no engine.")

    for person in (admin, annotator):
        page = as_user(person).get(desk(project)).content.decode()
        assert "no engine." in page
