"""Examples by reward: order, filters, plot, and what is done with selected ones."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Adjudication, Completion, Example, Project, Prompt, Vote
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.training.explorer import listing
from feedback_app.training.models import Run, SnapshotItem
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.services import run_finish, run_request
from feedback_app.training.snapshots.caps import capped
from tests.training.gate.reports import gate_report

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]


def finish(project: Project, admin: User, rewards: Callable[[int], float]) -> Run:
    """Request and end a run, whose n-th training example has the reward `rewards(n)`, z₀ = 0.5."""
    claim = run_claim(run_request(project=project, by=admin).pk)
    assert claim is not None
    name = project.adapter_name(claim.row.number)
    items = claim.row.snapshot.items.filter(split="train").order_by("completion")
    fit = {item.completion_id: (rewards(n), 0.5) for n, item in enumerate(items)}
    assert run_finish(
        claim=claim, path=f"adapters/{name}", sha256="0", report=gate_report(name), fit=fit
    )
    return claim.row


@pytest.fixture
def run(voted_project: Project, admin: User) -> Run:
    return finish(voted_project, admin, lambda n: float(n % 7) - 3)


def url(run: Run, query: str = "") -> str:
    return reverse("run-examples", args=[run.project.slug, run.number]) + query


def listed(client: Client, run: Run, query: str = "") -> list[Any]:
    """Return the items of the first page."""
    response = client.get(url(run, query))
    assert response.status_code == 200, response.content[:500]
    return list(response.context["page"])


def test_margin_is_the_reward_on_the_labels_side(run: Run) -> None:
    items = run.snapshot.items.filter(split="train")

    assert items.filter(margin=None).count() == 0
    for item in items:
        gap = item.reward - item.reference_point
        assert item.margin == pytest.approx(gap if item.desirable else -gap)
    assert not run.snapshot.items.exclude(split="train").exclude(margin=None).exists()


def test_worst_or_saturated_examples_come_first(run: Run, admin: User, as_user: As) -> None:
    client = as_user(admin)
    worst = [item.margin for item in listed(client, run)]
    saturated = [item.margin for item in listed(client, run, "?sort=saturated")]

    margins = sorted(run.snapshot.items.exclude(margin=None).values_list("margin", flat=True))
    assert worst == margins[:25]
    assert saturated == margins[::-1][:25]


def test_page_shows_rewards_and_links_its_points_to_rows(
    run: Run, admin: User, as_user: As
) -> None:
    items = listed(as_user(admin), run)
    text = as_user(admin).get(url(run)).content.decode()

    first = items[0]
    assert f'<a href="#example-{first.completion_id}"><title>' in text
    assert f'id="example-{first.completion_id}"' in text
    assert text.count('class="here ') == len(items)
    assert "off by 3.5" in " ".join(text.split())
    assert f"<dt>Reward, run {run.number}</dt>" in text


def test_rewards_under_live_are_those_of_the_live_versions_run(
    run: Run, admin: User, as_user: As, voted_project: Project
) -> None:
    voted_project.live_version = run.adapter.name
    voted_project.save()
    later = finish(voted_project, admin, lambda n: 5.0)

    item = listed(as_user(admin), later)[0]

    old = SnapshotItem.objects.get(snapshot=run.snapshot, completion=item.completion_id)
    assert (item.reward, item.live_reward) == (5.0, old.reward)
    text = as_user(admin).get(url(later)).content.decode()
    assert f"<dt>Reward, {run.adapter.name}</dt>" in text
    assert (
        f"<dt>Reward, {run.adapter.name}</dt>" not in as_user(admin).get(url(run)).content.decode()
    )


def test_filters_narrow_the_list(
    run: Run, admin: User, annotator: User, as_user: As, second_annotator: User
) -> None:
    client = as_user(admin)
    first, second, third = (item.completion_id for item in listed(client, run)[:3])
    Completion.objects.filter(pk=first).update(topic="bread", source="demo", text="x" * 300)
    Prompt.objects.filter(completions=first).update(topic="bread")
    Completion.objects.filter(pk=second).update(created_at="2026-03-04T12:00:00Z")
    vote_cast(
        completion=Completion.objects.get(pk=third),
        verdict=Vote.objects.filter(completion=third)[0].verdict,
        by=second_annotator,
        source="annotate",
    )

    def found(query: str) -> list[int]:
        return [item.completion_id for item in listed(client, run, query)]

    assert found("?topic=bread") == [first]
    assert found("?source=demo") == [first]
    assert found("?length=medium") == [first]
    assert found("?week=2026-W10") == [second]
    assert found(f"?person={second_annotator.pk}") == [third]
    assert found("?topic=bread&source=sampled") == []
    assert {item.desirable for item in listed(client, run, "?label=up")} == {True}


def test_filters_look_through_a_window_only(
    run: Run, admin: User, as_user: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "WINDOW", 4)

    assert len(listed(as_user(admin), run, "?length=short")) <= 4


@pytest.mark.parametrize(
    "query",
    [
        "?sort=margin",
        "?topic=unknown",
        "?person=1e9",
        "?week=2026-48",
        "?week=2026-W60",
        "?week=9999-W99",
        "?week=9999-W52",
        "?length=0",
        "?completion__project=1",
        "?page=x",
    ],
)
def test_unknown_parameters_are_refused(query: str, run: Run, admin: User, as_user: As) -> None:
    assert as_user(admin).get(url(run, query)).status_code == 400


def act(client: Client, run: Run, action: str, items: list[int], query: str = "") -> Any:
    return client.post(url(run, query), {"action": action, "item": items}, follow=True)


def test_selected_examples_are_excluded_and_used_again(run: Run, admin: User, as_user: As) -> None:
    client = as_user(admin)
    chosen = [item.completion_id for item in listed(client, run)[:2]]

    page = act(client, run, "exclude", chosen, "?sort=saturated&page=2")

    assert page.redirect_chain[0][0].endswith("?sort=saturated&page=2")
    assert not Example.objects.filter(pk__in=chosen).exists()
    assert run.snapshot.items.filter(completion__in=chosen).count() == 2, "snapshots stay"
    assert client.get(url(run)).content.decode().count("Excluded</span>") == 2
    event = AuditEvent.objects.get(action="examples.weigh")
    assert event.target == f"0: {chosen[0]}, {chosen[1]}" or str(chosen[0]) in event.target
    act(client, run, "include", chosen)
    assert Example.objects.filter(pk__in=chosen).count() == 2


def test_excluded_example_stays_out_when_its_votes_change(
    run: Run, admin: User, as_user: As, second_annotator: User
) -> None:
    [chosen] = [item.completion_id for item in listed(as_user(admin), run)[:1]]
    act(as_user(admin), run, "exclude", [chosen])
    completion = Completion.objects.get(pk=chosen)
    for verdict in ("up", "down"):
        vote_cast(completion=completion, verdict=verdict, by=second_annotator, source="annotate")

    assert not Example.objects.filter(pk=chosen).exists()


def test_weight_is_multiplied_with_the_votes(run: Run, admin: User, as_user: As) -> None:
    [chosen] = [item.completion_id for item in listed(as_user(admin), run)[:1]]
    before = Example.objects.get(pk=chosen).weight

    act(as_user(admin), run, "weight-0.25", [chosen])

    assert Example.objects.get(pk=chosen).weight == pytest.approx(before * 0.25)
    later = run_request(project=run.project, by=admin)
    assert later.snapshot.items.get(completion=chosen).weight == pytest.approx(before * 0.25)


def test_selected_examples_are_sent_back(run: Run, admin: User, as_user: As) -> None:
    chosen = [item.completion_id for item in listed(as_user(admin), run)[:3]]

    act(as_user(admin), run, "send-back", chosen)

    assert set(Adjudication.objects.filter(open=True).values_list("pk", flat=True)) == set(chosen)


def test_examples_of_others_and_nothing_selected_are_refused(
    run: Run, admin: User, as_user: As, outsider: User, make_completions: Any
) -> None:
    other = Project.objects.get(slug="other")
    [foreign] = make_completions(1, of=other)
    client = as_user(admin)

    own = listed(client, run)[0].completion_id
    for action, items, why in (
        ("exclude", [own, foreign.pk], f"{foreign.pk} is not one of the available choices"),
        ("exclude", [], "Select at least one example"),
        ("weight-9", [own], "weight-9 is not one of the available choices"),
        ("exclude", ["1e3", "x", ""], "not one of the available choices"),
    ):
        assert why in act(client, run, action, items).content.decode()
    assert not Completion.objects.exclude(training_weight=None).exists()
    assert as_user(outsider).get(url(run)).status_code == 404


def test_run_without_rewards_says_so(voted_project: Project, admin: User, as_user: As) -> None:
    run = run_request(project=voted_project, by=admin)

    assert "No rewards yet" in as_user(admin).get(url(run)).content.decode()


def test_examples_page_leads_to_the_newest_finished_run(run: Run, admin: User, as_user: As) -> None:
    page = as_user(admin).get(reverse("examples", args=[run.project.slug]))

    assert url(run) in page.content.decode()


def test_queries_do_not_grow_with_the_page(
    run: Run, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    client = as_user(admin)
    client.get(url(run))
    with django_assert_max_num_queries(16):
        assert len(listed(client, run)) == 25
    with django_assert_max_num_queries(18):
        listed(client, run, "?label=up&length=short")


def test_hostile_text_is_shown_as_text(run: Run, admin: User, as_user: As) -> None:
    [chosen] = [item.completion_id for item in listed(as_user(admin), run)[:1]]
    hostile = '<script>alert(1)</script><svg onload="x">'
    Completion.objects.filter(pk=chosen).update(text=hostile)
    prompt = Completion.objects.get(pk=chosen).prompt
    prompt.messages = [{"role": "user", "content": hostile}]
    prompt.save()

    text = as_user(admin).get(url(run)).content.decode()

    assert "<script>alert" not in text
    assert "<svg onload" not in text


def test_cap_does_not_bring_an_excluded_example_back(
    run: Run, admin: User, annotator: User, as_user: As, second_annotator: User
) -> None:
    project = run.project
    [chosen] = [item.completion_id for item in listed(as_user(admin), run)[:1]]
    act(as_user(admin), run, "exclude", [chosen])
    other = Vote.objects.filter(completion=chosen)[0]
    against = "down" if other.verdict == "up" else "up"
    completion = Completion.objects.get(pk=chosen)
    vote_cast(completion=completion, verdict=against, by=second_annotator, source="annotate")
    # without the second person's vote, the tie would be an example
    cap = capped({chosen: {second_annotator.pk}}, people=1)

    assert cap.restored == {}
    assert chosen not in cap.examples or cap.examples[chosen] is None
    assert project.examples.filter(pk=chosen).count() == 0
