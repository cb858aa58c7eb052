"""The report's page, its states, and runs without a group of votes."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Project, Source, Verdict
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.privacy.erasure import person_erase
from feedback_app.privacy.export import person_json
from feedback_app.training.influence.groups import (
    Result,
    groups_of,
    ingredients,
    training_items,
)
from feedback_app.training.influence.services import (
    MAX_CLAIMS,
    influence_claim,
    influence_execute,
    influence_request,
    result_store,
)
from feedback_app.training.launchers.selection import launcher_selected
from feedback_app.training.models import Adapter, InfluenceReport, Run
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution.taking import snapshot_take
from feedback_app.training.runs.services import run_request
from feedback_app.training.snapshots import services as snapshots
from feedback_app.web.errors import UserError

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]


@pytest.fixture
def adapter(voted_project: Project, second_annotator: User, admin: User) -> Adapter:
    """A version of sixty votes of Ann, of which Bob shares ten."""
    Project.objects.filter(pk=voted_project.pk).update(person_share=100)
    for completion in voted_project.completions.order_by("pk")[:10]:
        vote_cast(
            completion=completion, verdict=Verdict.UP, by=second_annotator, source=Source.ANNOTATE
        )
    project = Project.objects.get(pk=voted_project.pk)
    config = RunConfig(epochs=1, batch_size=4, kl_brake=None)
    run = run_request(project=project, by=admin, config=config)
    Run.objects.filter(pk=run.pk).update(
        status=Run.Status.SUCCEEDED,
        probes=[[4, 0.5, None]],
        facts={"lambda_d": 1.25, "lambda_u": 1.0},
    )
    run.refresh_from_db()
    return Adapter.objects.create(
        project=project, run=run, name="bot@1", path="adapters/bot@1", sha256="0" * 64
    )


def ended(adapter: Adapter, by: User) -> InfluenceReport:
    """Request a report and end it, with an influence of 1 for every example but Bob's ups."""
    influence_request(adapter=adapter, by=by)
    claim = influence_claim(adapter.pk)
    assert claim is not None
    snapshot = adapter.run.snapshot
    found = ingredients(snapshot, training_items(snapshot))
    groups = groups_of(found, lambda pk, up: -1.0 if up else 1.0, all_influence=50.0)
    result = Result(["step 9", "step 12"], 12, 40, 41, groups)
    result_store(claim, result, probes=[])
    return InfluenceReport.objects.get(pk=adapter.pk)


def url(adapter: Adapter, name: str = "influence") -> str:
    return reverse(name, args=[adapter.project.slug, adapter.name])


def without(client: Client, adapter: Adapter, kind: str, key: str) -> str:
    """Post the button of a group; return the page that follows."""
    body = {"kind": kind, "key": key}
    return client.post(url(adapter, "influence-train"), body, follow=True).content.decode()


def test_page_of_a_version_without_a_report_offers_one(
    adapter: Adapter, admin: User, as_user: SignIn
) -> None:
    client = as_user(admin)

    page = client.get(url(adapter)).content.decode()
    assert "Nothing is estimated yet" in page

    client.post(url(adapter, "influence-new"))
    assert "Waiting for a GPU worker" in client.get(url(adapter)).content.decode()
    assert AuditEvent.objects.filter(action="influence.request", target="bot@1").exists()


def test_second_request_changes_nothing_while_the_first_is_in_progress(
    adapter: Adapter, admin: User
) -> None:
    influence_request(adapter=adapter, by=admin)
    claim = influence_claim(adapter.pk)
    assert claim is not None

    assert influence_request(adapter=adapter, by=admin).attempt == 1
    assert influence_claim(adapter.pk) is None, "another worker has it"


def test_claim_of_an_earlier_report_does_not_hold_for_the_next(
    adapter: Adapter, admin: User
) -> None:
    influence_request(adapter=adapter, by=admin)
    first = influence_claim(adapter.pk)
    assert first is not None
    first.update(status="failed")

    influence_request(adapter=adapter, by=admin)
    second = influence_claim(adapter.pk)

    assert second is not None
    assert (first.update(phase="late"), second.update(phase="now")) == (False, True)


def test_report_whose_workers_die_ends_with_the_reason_and_can_be_requested_again(
    adapter: Adapter, admin: User, as_user: SignIn
) -> None:
    client, launcher = as_user(admin), launcher_selected(adapter.project)
    long_ago = timezone.now() - dt.timedelta(days=1)
    for _ in range(2):
        client.post(url(adapter, "influence-new"))
        for _ in range(MAX_CLAIMS - 1):
            assert influence_claim(adapter.pk), "its worker dies: nothing else is written"
            InfluenceReport.objects.update(heartbeat_at=long_ago)

        last = influence_claim(adapter.pk)
        assert last is not None
        influence_execute(last, launcher)

        assert influence_claim(adapter.pk) is None
        assert "workers in a row died" in client.get(url(adapter)).content.decode()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"trigger": "imported"}, "trained elsewhere"),
        ({"config": {"loss": "dpo"}}, "pairs of answers"),
        ({"config": {"lora_init": "pissa"}}, "PiSSA"),
    ],
)
def test_what_cannot_be_estimated_is_said_on_the_page(
    adapter: Adapter, admin: User, as_user: SignIn, change: dict[str, object], why: str
) -> None:
    Run.objects.filter(pk=adapter.run_id).update(**change)
    client = as_user(admin)

    assert why in client.get(url(adapter)).content.decode()
    client.post(url(adapter, "influence-new"))
    assert not InfluenceReport.objects.exists()


def test_locked_version_is_refused(adapter: Adapter, admin: User) -> None:
    Adapter.objects.filter(pk=adapter.pk).update(locked_at=timezone.now())
    adapter.refresh_from_db()
    with pytest.raises(UserError, match="locked"):
        influence_request(adapter=adapter, by=admin)


def test_table_ranks_the_people_and_says_what_the_sign_means(
    adapter: Adapter, admin: User, as_user: SignIn
) -> None:
    ended(adapter, admin)

    page = as_user(admin).get(url(adapter)).content.decode()

    assert page.index("Bob") < page.index("Ann Otator")
    assert "Better" in page
    assert "Worse" in page
    assert "step 9, step 12" in " ".join(page.split())
    assert "40 of 41 training examples" in " ".join(page.split())


@pytest.mark.parametrize(
    ("kind", "shown"), [("topic", "No topic"), ("source", "Annotation"), ("week", "20")]
)
def test_tabs_show_the_other_groupings(
    adapter: Adapter, admin: User, as_user: SignIn, kind: str, shown: str
) -> None:
    ended(adapter, admin)

    page = as_user(admin).get(url(adapter) + f"?by={kind}").content.decode()

    assert shown in page
    assert "Ann Otator" not in page.split("<main", 1)[1]


def test_unknown_grouping_is_refused(adapter: Adapter, admin: User, as_user: SignIn) -> None:
    assert as_user(admin).get(url(adapter) + "?by=owner__password").status_code == 400


def test_run_without_a_person_is_an_ordinary_run_on_the_same_settings(
    adapter: Adapter, admin: User, second_annotator: User, as_user: SignIn
) -> None:
    ended(adapter, admin)

    page = without(as_user(admin), adapter, "person", str(second_annotator.pk))

    assert "Run 2 is queued" in page
    run = Run.objects.get(number=2)
    assert (run.trigger, run.requested_by, run.auto_release) == ("without", admin, False)
    assert run.config == adapter.run.config | {"lambda_d": 1.25, "lambda_u": 1.0}
    assert run.snapshot.validation_total == adapter.run.snapshot.validation_total
    assert run.snapshot.test_total == adapter.run.snapshot.test_total
    assert run.snapshot.items.filter(weight__lt=1).count() == 0, "nobody disagrees any more"
    assert "Bob" not in AuditEvent.objects.get(action="run.request", target="Run 2").reason


def test_run_without_a_person_of_a_large_version_is_copied_by_a_worker(
    adapter: Adapter,
    admin: User,
    second_annotator: User,
    as_user: SignIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended(adapter, admin)
    monkeypatch.setattr(snapshots, "AT_ONCE", 5)

    page = without(as_user(admin), adapter, "person", str(second_annotator.pk))

    assert "Run 2 is queued" in page
    run = Run.objects.select_related("snapshot").get(number=2)
    assert not run.snapshot.items.exists()
    assert run_claim(run.pk) is None
    original = adapter.run.snapshot
    assert snapshot_take(run.snapshot_id)
    run.snapshot.refresh_from_db()
    assert run.snapshot.created_at == original.created_at
    assert run.snapshot.validation_total == original.validation_total
    assert run.snapshot.test_total == original.test_total
    assert run.snapshot.train_total == run.snapshot.items.filter(split="train").count() > 0
    assert run.snapshot.items.filter(weight__lt=1).count() == 0, "nobody disagrees any more"
    assert run_claim(run.pk) is not None


def test_run_without_all_votes_of_a_large_version_fails_with_the_reason(
    adapter: Adapter, admin: User, as_user: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(adapter, admin)
    monkeypatch.setattr(snapshots, "AT_ONCE", 5)

    without(as_user(admin), adapter, "source", "annotate")
    run = Run.objects.get(number=2)

    assert not snapshot_take(run.snapshot_id)
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED
    assert "0 up and 0 down: KTO needs at least 4 of each" in run.error


def test_measured_difference_is_shown_when_the_run_has_ended(
    adapter: Adapter, admin: User, second_annotator: User, as_user: SignIn
) -> None:
    ended(adapter, admin)
    client = as_user(admin)
    assert "waiting" in without(client, adapter, "person", str(second_annotator.pk))

    Run.objects.filter(number=2).update(status=Run.Status.SUCCEEDED, probes=[[4, 0.4375, None]])
    page = " ".join(client.get(url(adapter)).content.decode().split())

    assert "loss 0.5000 → 0.4375</span>, better" in page


def test_estimating_again_keeps_what_was_measured(
    adapter: Adapter, admin: User, second_annotator: User, as_user: SignIn
) -> None:
    ended(adapter, admin)
    without(as_user(admin), adapter, "person", str(second_annotator.pk))

    report = ended(adapter, admin)

    runs = {group["key"]: group["run"] for group in report.result["groups"]["person"]}
    assert runs[str(second_annotator.pk)] == 2


def test_group_that_is_not_among_the_first_is_refused(
    adapter: Adapter, admin: User, as_user: SignIn
) -> None:
    ended(adapter, admin)

    page = without(as_user(admin), adapter, "person", "999999")

    assert "one of the first 5 groups only" in page
    assert Run.objects.count() == 1


def test_run_without_all_votes_is_refused_with_the_reason(
    adapter: Adapter, admin: User, as_user: SignIn
) -> None:
    ended(adapter, admin)

    without(as_user(admin), adapter, "source", "annotate")

    assert Run.objects.count() == 1


def test_only_admins_see_the_page(
    adapter: Adapter, viewer: User, annotator: User, outsider: User, as_user: SignIn
) -> None:
    for user, status in ((viewer, 403), (annotator, 403), (outsider, 404)):
        assert as_user(user).get(url(adapter)).status_code == status


def test_waiting_report_is_cancelled_at_once(
    adapter: Adapter, admin: User, as_user: SignIn
) -> None:
    influence_request(adapter=adapter, by=admin)

    client = as_user(admin)
    client.post(url(adapter, "influence-cancel"))

    assert InfluenceReport.objects.get().status == "cancelled"
    assert influence_claim(adapter.pk) is None
    assert "was cancelled" in client.get(url(adapter)).content.decode()


def test_erased_person_vanishes_from_the_report(
    adapter: Adapter, admin: User, second_annotator: User, as_user: SignIn
) -> None:
    key = str(second_annotator.pk)
    report = ended(adapter, admin)
    assert key in str(report.result["groups"]["person"])
    assert '"influence": [{"version": "bot@1"' in "".join(person_json(second_annotator))

    person_erase(user=second_annotator, by=None, project=adapter.project)

    report.refresh_from_db()
    assert key not in {group["key"] for group in report.result["groups"]["person"]}
    assert "Bob" not in as_user(admin).get(url(adapter)).content.decode().split("<main", 1)[1]


def test_person_erased_while_it_is_measured_is_not_stored(
    adapter: Adapter, admin: User, second_annotator: User
) -> None:
    influence_request(adapter=adapter, by=admin)
    claim = influence_claim(adapter.pk)
    assert claim is not None
    snapshot = adapter.run.snapshot
    found = ingredients(snapshot, training_items(snapshot))
    groups = groups_of(found, lambda pk, up: 1.0, all_influence=1.0)
    person_erase(user=second_annotator, by=None)

    result_store(claim, Result(["step 1"], 12, 41, 41, groups), probes=[[4, 0.25, None]])

    stored = InfluenceReport.objects.get().result["groups"]["person"]
    assert len(stored) == 1
    assert str(second_annotator.pk) != stored[0]["key"]


def test_number_of_queries_does_not_depend_on_the_groups(
    adapter: Adapter, admin: User, as_user: SignIn, django_assert_max_num_queries: Callable
) -> None:
    report = ended(adapter, admin)
    people = [
        User.objects.create(email=f"{number}@example.com", name="Long " * 15 + str(number))
        for number in range(30)
    ]
    group = report.result["groups"]["person"][0]
    report.result["groups"]["person"] = [group | {"key": str(user.pk), "run": 1} for user in people]
    report.save()
    client = as_user(admin)

    with django_assert_max_num_queries(12):
        page = client.get(url(adapter)).content.decode()
    assert "Page 1 of 2" in page
