"""The steps after an erasure, without a person: train again, release, lock, delete.

Each call takes the next step that is due. What there is to do follows from rows alone, so that a
call can be repeated, and interrupted at any point.
"""

import structlog
from django.db import transaction
from django.utils import timezone

from feedback_app.feedback.models import Completion, Project, Source, VoteEvent
from feedback_app.feedback.prompts.completions import version_number
from feedback_app.serving.engine.client import Engine, EngineError
from feedback_app.serving.models import ChangeReport, FixedAnswer, TrafficSplit
from feedback_app.serving.releases.automatic import live_version_claimed
from feedback_app.serving.releases.services import release_flip, release_promote
from feedback_app.serving.traffic_splits.assignments import RUNNING, split_close
from feedback_app.training.forgetting.selectors import Affected, affected_runs
from feedback_app.training.forgetting.services import run_files_delete, run_retrain, versions_lock
from feedback_app.training.models import Adapter, Erasure, Run
from feedback_app.training.runs.services import run_cancel
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)

FALLEN_BACK = (
    "The version had learned from what was erased, and no version without it was released."
)


def project_forget(project_id: int) -> None:
    """Take the next steps for the project's pending erasures."""
    project = Project.objects.get(pk=project_id)
    erasures = list(Erasure.objects.filter(project=project).pending().order_by("due_at"))
    if not erasures:
        return
    affected = affected_runs(project, erasures)
    lock(project, affected)
    now = timezone.now()
    due = [erasure for erasure in erasures if erasure.due_at is not None and erasure.due_at <= now]
    live = version_number(project.live_version)
    if any(live in affected.runs[erasure.pk] for erasure in due):
        base_go_live(project)
    elif live in affected.all:
        live_retrain(project, live, affected, erasures)
    for erasure in due:
        versions_delete(project, erasure, affected)


def lock(project: Project, affected: Affected) -> None:
    """Lock the affected versions that are not live, unload them, and end a traffic split that one
    is part of."""
    for adapter in versions_lock(project=project, numbers=affected.all):
        log.info("version_locked", adapter=adapter.name)
        version_unload(project, adapter.name)
    split = project.traffic_splits.filter(status=RUNNING, candidate__locked_at__isnull=False)
    if split.exists():
        with transaction.atomic():
            split_close(
                project=project,
                status=TrafficSplit.Status.STOPPED,
                by=None,
                reason="The candidate had learned from what was erased.",
            )


def live_retrain(
    project: Project, live: int, affected: Affected, erasures: list[Erasure]
) -> Run | None:
    """Queue the next run that is needed to replace the live version; None if there is nothing to
    do, or another run is active.

    A version that was started from affected ones takes several: their first one is trained again,
    then the next one from it. The last one has automatic release: serving does that.
    """
    if project.archived_at is not None or project.runs.active().evaluated().exists():
        return None
    replaced: dict[int, Adapter] = {}
    for number in affected.chain(live):
        run = project.runs.select_related("project", "snapshot").get(number=number)
        clean = run.retrainings.exclude(number__in=affected.all).select_related("adapter")
        newest = clean.order_by("-number").first()
        if newest is None:
            start = replaced.get(affected.starts.get(number, 0))
            return retrain(run, start=start, release=number == live, erasures=erasures)
        adapter: Adapter | None = getattr(newest, "adapter", None)
        if adapter is None:
            return None  # it has failed: an admin can resume it
        replaced[number] = adapter
    return None


def retrain(
    run: Run, *, start: Adapter | None, release: bool, erasures: list[Erasure]
) -> Run | None:
    """Queue the run again, or note on the erasures why that is not possible."""
    problem, again = "", None
    try:
        again = run_retrain(run=run, start=start, release=release)
    except UserError as error:
        problem = str(error)
    changed = Erasure.objects.filter(pk__in=[erasure.pk for erasure in erasures])
    changed.exclude(problem=problem).update(problem=problem)
    return again


def base_go_live(project: Project) -> None:
    """Make the base model live at the deadline; do nothing while another worker changes what is
    live, as the next call tries again."""
    with live_version_claimed(project.pk) as claimed:
        if not claimed:
            return
        before = project.releases.filter(live=True).select_related("adapter").first()
        try:
            release_promote(project=project, adapter=None, by=None, reason=FALLEN_BACK)
        except (UserError, EngineError) as error:
            # a deadline does not wait for an engine that is down
            log.warning("base_released_without_canary", project=project.slug, why=str(error))
            project.refresh_from_db(fields=["live_version"])
            if version_number(project.live_version):
                release_flip(
                    project=project, adapter=None, before=before, by=None, reason=FALLEN_BACK
                )


def versions_delete(project: Project, erasure: Erasure, affected: Affected) -> None:
    """Delete the versions that had used what was erased, and end the erasure once all are gone.

    One that is still live, or whose run is still active, is left for the next call.
    """
    numbers = affected.runs[erasure.pk]
    project.refresh_from_db(fields=["live_version"])
    lock(project, affected)
    left = False
    for run in project.runs.filter(number__in=numbers).select_related("project").order_by("number"):
        if run.active:
            left = True
            if not run.cancel_requested:
                run_cancel(run=run, by=None)
        elif project.live_version == project.adapter_name(run.number):
            left = True
        else:
            answers_delete(run)
            run_files_delete(run)
    if not left:
        Erasure.objects.filter(pk=erasure.pk).update(deleted_at=timezone.now())
        log.info("erasure_forgotten", erasure=erasure.pk, runs=sorted(numbers))


def version_unload(project: Project, name: str) -> None:
    """Unload a locked version from the engines, which cannot load it again."""
    try:
        Engine(project).unload(name)
    except EngineError as error:
        # an engine that is down has unloaded it
        log.warning("unload_failed", adapter=name, why=str(error))


def answers_delete(run: Run) -> None:
    """Delete the answers of a run's version that nobody has voted on: to fixed prompts, and those
    in the queue. An answer with votes is part of what others have taught, and stays."""
    name = run.project.adapter_name(run.number)
    version_unload(run.project, name)
    ChangeReport.objects.filter(adapter__run=run).delete()
    FixedAnswer.objects.filter(fixed_prompt__project=run.project, version=name).delete()
    judged = VoteEvent.objects.filter(completion__project=run.project, completion__version=name)
    Completion.objects.filter(
        project=run.project,
        version=name,
        source=Source.SAMPLED,
        vote_count=0,
        gold=False,
        decided="",
    ).exclude(pk__in=judged.values("completion")).delete()
