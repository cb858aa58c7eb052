"""Print, as JSON, what the client's URLs contain: sessions, and ids of every kind of object."""

import json
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import django

django.setup()

from django.db.models import QuerySet  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402

from bench.scale_parts.shape import OVERLAP, SLUG  # noqa: E402
from feedback_app.accounts.models import Role, User  # noqa: E402
from feedback_app.api.data.pagination import cursor_of  # noqa: E402
from feedback_app.feedback.figures import services as figures  # noqa: E402
from feedback_app.feedback.members import figures as members  # noqa: E402
from feedback_app.feedback.models import Figures, Project, WebhookDelivery  # noqa: E402
from feedback_app.feedback.projects.forms import ProjectForm  # noqa: E402
from feedback_app.feedback.projects.rules.forms import RulesForm  # noqa: E402
from feedback_app.feedback.reliability import services as reliability  # noqa: E402
from feedback_app.serving.project_home import history  # noqa: E402
from feedback_app.serving.releases import figures as releases  # noqa: E402
from feedback_app.training.gate.forms import GateRulesForm  # noqa: E402
from feedback_app.training.gate.people.counts import PairCounts  # noqa: E402
from feedback_app.training.gate.services import gate_settings  # noqa: E402
from feedback_app.training.models import BlindPair, PairBatch, Schedule  # noqa: E402
from feedback_app.training.runs.fit import fit_of_rows  # noqa: E402
from feedback_app.training.runs.forms import RunForm  # noqa: E402
from feedback_app.training.schedules.own_settings import ScheduleSettingsForm  # noqa: E402
from feedback_app.training.snapshots import figures as snapshots  # noqa: E402
from feedback_app.training.snapshots.content import services as content  # noqa: E402

ANNOTATORS = 34
#: The most requests of an operation that can be made once for each object.
MOST = 150
PAIRS = 200


def session_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


def visitor_session(project: Project) -> str:
    """Return the session of the first visitor of the share link whose secret the client has."""
    link = project.share_links.order_by("pk")[0]
    client = Client()
    session = client.session
    session[f"share-{link.pk}"] = link.visitors.order_by("pk")[0].pk
    session.save()
    return client.cookies["sessionid"].value


def visitor_answer(project: Project) -> int:
    """Return the answer in that visitor's conversation."""
    user = project.share_links.order_by("pk")[0].visitors.order_by("pk")[0].user
    found = project.completions.get(turns__conversation__user=user)
    return int(found.pk)


def some(rows: QuerySet[Any], field: str = "pk", count: int = 40) -> list[Any]:
    """Return values of rows that are spread over the whole table, as text where they are UUIDs."""
    newest = rows.order_by("-pk").values_list(field, flat=True)[:count]
    oldest = rows.order_by("pk").values_list(field, flat=True)[: count // 2]
    found = [value for pair in zip(newest, oldest, strict=False) for value in pair]
    return [value if isinstance(value, int) else str(value) for value in dict.fromkeys(found)]


def form_values(form: Any) -> dict[str, str]:
    """Return what a browser sends when the form is saved unchanged."""
    values = {field.html_name: field.value() for field in form}
    return {
        name: "on" if value is True else str(value)
        for name, value in values.items()
        if value is not None and value is not False
    }


def comparisons_open(project: Project, viewer: User) -> QuerySet[Any]:
    """Return comparisons of the viewer that are not judged; each run judges some."""
    found = project.comparisons.filter(user=viewer, choice="")
    answers = project.completions.filter(source="demo").order_by("pk")
    for left, right in pairwise(answers[: MOST + 1]):
        if found.count() < MOST:
            project.comparisons.create(
                user=viewer,
                question="A question",
                left_version="base",
                right_version=f"{SLUG}@100",
                left=left,
                right=right,
            )
    return found


def pairs_of(project: Project, *, end: str) -> QuerySet[Any]:
    """Return the blind pairs of a version whose batch is open, or of one whose batch has ended.

    So many that no run judges them all, which would end the batch.
    """
    # not the oldest, which some requests discard
    adapter = project.adapters.order_by("-pk")[1 if end else 0]
    batch, created = PairBatch.objects.get_or_create(
        adapter=adapter,
        defaults={
            "project": project,
            "end": end,
            "ended_at": timezone.now() if end else None,
            "decided_at": timezone.now() if end else None,
            "counts": PairCounts(PAIRS, 0, end=end).as_json() if end else {},
        },
    )
    if created:
        BlindPair.objects.bulk_create(
            BlindPair(
                batch=batch,
                position=position,
                prompt=prompt,
                messages=[{"role": "user", "content": f"Question {position}?"}],
                candidate_text="An answer. " * 40,
                live_text="Another answer. " * 40,
            )
            for position, prompt in enumerate(project.prompts.order_by("pk")[:PAIRS])
        )
    return batch.pairs.all()


def places(project: Project) -> dict[str, list[Any]]:
    people = User.objects.filter(memberships__project=project, email__startswith="p")
    viewer = User.objects.get(email="viewer@example.com")
    chats = project.conversations.filter(user=viewer)
    judged = project.comparisons.filter(user=viewer).exclude(choice="")
    hook = project.webhooks.order_by("pk").first()
    assert hook is not None
    completions = project.completions
    newest = project.runs.filter(status="succeeded").order_by("-pk")[0]
    # judged three times: no annotator of the load takes them
    plain = completions.filter(queued=True, contested=False, decided="", flagged=False)
    return {
        "completion": some(completions.all()),
        "plain": some(plain.filter(vote_count=3)),
        "contested": some(
            completions.filter(contested=True, decided="", vote_count__gte=OVERLAP),
        ),
        "asked": some(project.adjudications.filter(open=True)),
        "decided": some(project.adjudications.filter(verdict="up")),
        "flagged": some(completions.filter(flagged=True)),
        "gold": some(project.gold_items.all()),
        "prompt": some(project.prompts.all()),
        "vote": some(project.votes.all()),
        # the oldest that nobody gets at the desk or in the demo: votes make and remove others
        "example": list(
            project.examples.filter(completion__source="import")
            .order_by("pk")
            .values_list("pk", flat=True)[:40]
        ),
        "api_completion": some(completions.filter(source="api")),
        "demo_completion": some(completions.filter(turns__conversation__in=chats)),
        # not those who annotate (ANNOTATORS), as some requests change their roles
        "person": list(people.order_by("-pk").values_list("pk", flat=True)[:15]),
        "run": some(project.runs.all(), "number"),
        "succeeded": some(project.runs.filter(status="succeeded"), "number", 6),
        "newest_run": [newest.number],
        "trained": some(newest.snapshot.items.all(), "completion_id"),
        "cursor": [cursor_of("prompts", project.prompts.order_by("-pk")[0].pk // 2)],
        "votes_cursor": [cursor_of("votes", project.votes.order_by("-pk")[0].pk // 2)],
        "examples_cursor": [cursor_of("examples", project.examples.order_by("-pk")[0].pk // 2)],
        "visitor_completion": [visitor_answer(project)],
        "sweep": some(project.sweeps.all(), "number"),
        "running": [project.runs.get(status="running").number],
        "adapter": some(project.adapters.all(), "name", 6),
        "other_adapter": [str(project.adapters.order_by("pk")[0].name)],
        # in alphabetical order it is among the fifty of the menu
        "listed_version": [f"{SLUG}@100"],
        "import": some(project.import_jobs.all()),
        "webhook": [hook.pk],
        "delivery": some(WebhookDelivery.objects.filter(webhook=hook)),
        "token": some(project.tokens.filter(name="A token")),
        "invitation": some(project.invitations.all()),
        "share_link": some(project.share_links.filter(pk__gt=1000)),
        "split": [project.traffic_splits.get(status="running").pk],
        "pair": some(pairs_of(project, end="")),
        "pair_run": some(pairs_of(project, end="judged"), "batch__adapter__run__number"),
        "probe": some(project.probes.filter(retired_at=None)),
        "pause": some(project.pauses.filter(lifted_at=None)),
        "lifted": some(project.pauses.exclude(lifted_at=None).filter(restored=False)),
        "conversation": some(chats),
        "comparison": some(judged),
        "table": ["votes", "agreement", "rates"],
        "run_form": [urlencode(form_values(RunForm()))],
        "open_comparison": some(comparisons_open(project, viewer), count=MOST),
    }


def figures_store(project: Project) -> None:
    """Count the figures of a large project, as its worker does."""
    for module, count in (
        (members, members.members_count),
        (releases, releases.up_rates_count),
        (history, history.history_count),
        (snapshots, snapshots.snapshot_count),
        (reliability, reliability.reliability_count),
        (content, content.content_count),
    ):
        figures.figures_stored(project=project, name=module.NAME, rows=project.votes.all())
        Figures.objects.filter(project=project).update(status="queued")
        for due in figures.figures_due(module.NAME):
            figures.figures_count(pk=due.pk, count=count)


def fit_store(project: Project) -> None:
    """Store the summary that the newest run's end would have stored."""
    run = project.runs.filter(status="succeeded").order_by("-pk")[0]
    if run.fit is None:
        rows = run.snapshot.items.order_by("completion")
        fields = rows.values_list("pk", "reward", "reference_point", "desirable")
        run.fit = fit_of_rows(fields.iterator(chunk_size=10_000)).as_json()
        run.save(update_fields=["fit"])


def restore(project: Project) -> None:
    """Undo what requests have changed in an earlier run, where it cannot be done twice."""
    project.adjudications.filter(open=False, verdict="", asked="why").update(open=True)
    first = project.pauses.order_by("pk").values("pk")[:5]
    project.pauses.filter(pk__in=first).update(lifted_at=None)
    people = User.objects.filter(memberships__project=project, email__startswith="p")
    people.filter(is_active=False).update(is_active=True)
    project.memberships.filter(user__in=people).update(role=Role.ANNOTATOR)


def main() -> None:
    project = Project.objects.get(slug=SLUG)
    restore(project)
    figures_store(project)
    fit_store(project)
    staff = User.objects.filter(
        email__in=[f"{r}@example.com" for r in ("owner", "admin", "viewer")]
    )
    sessions = {user.email.partition("@")[0]: session_of(user) for user in staff}
    people = User.objects.filter(memberships__project=project, email__startswith="p")
    annotators = [session_of(user) for user in people.order_by("pk")[10 : 10 + ANNOTATORS]]
    found = {
        "project": SLUG,
        "sessions": sessions | {"annotator": annotators[0], "visitor": visitor_session(project)},
        "annotators": annotators[1:],
        "places": places(project),
        "settings": form_values(ProjectForm(instance=project)),
        "rules": form_values(RulesForm(instance=project)),
        "schedule": form_values(ScheduleSettingsForm.of(Schedule(project=project), project)),
        "gate": form_values(GateRulesForm.of(gate_settings(project))),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
