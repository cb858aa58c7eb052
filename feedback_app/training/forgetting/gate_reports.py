"""Questions that are deleted leave the gate reports of all versions.

The gate asks test prompts whether they were voted on or not, so a report has questions that no
snapshot and so no erasure names. Its measures stay.
"""

import shutil
from collections.abc import Collection, Mapping
from typing import Any

import structlog
from django.db.models import QuerySet

from artifact_store.errors import StoreError
from feedback_app.artifacts import artifact_store
from feedback_app.feedback.models import Probe, Prompt, Split
from feedback_app.training.gate.evaluation import (
    EVALUATION,
    PROBES_FILE,
    PROMPTS_FILE,
    TEST_FILE,
    evaluation_directory,
    evaluation_ids,
)
from feedback_app.training.models import Adapter, Run

log = structlog.get_logger(__name__)

Report = dict[str, Any]


def questions_forget(prompts: Collection[int]) -> None:
    """Take prompts, which the caller is about to delete, out of the gate reports of their project,
    with all answers to them and the probes made of them; delete the files of these evaluations, and
    of those that ended without a version.

    Reads the reports of the versions since the oldest of the prompts, one by one. Call it in the
    transaction that deletes them.
    """
    asked = Prompt.objects.filter(pk__in=prompts, split=Split.TEST).order_by("created_at")
    probes = Probe.objects.filter(completion__prompt__in=prompts)
    names = {str(pk) for pk in asked.values_list("pk", flat=True)}
    probed = {str(pk) for pk in probes.values_list("pk", flat=True)}
    if not names and not probed:
        return
    oldest = Prompt.objects.filter(pk__in=prompts).order_by("created_at").first()
    if oldest is None:
        return
    rows = Adapter.objects.filter(project=oldest.project_id, created_at__gte=oldest.created_at)
    for pk in list(rows.order_by("pk").values_list("pk", flat=True)):
        # locked, as people may decide the version meanwhile (gate/people/decision.py)
        adapter = rows.select_related("run").select_for_update(of=("self",)).get(pk=pk)
        report = without_questions(adapter.report, names, probes=probed)
        if report is not None:
            Adapter.objects.filter(pk=adapter.pk).update(report=report)
            evaluation_files_remove(adapter.run)
    ended = Run.objects.filter(project=oldest.project_id, adapter=None, evaluates=True)
    failed = (Run.Status.FAILED, Run.Status.CANCELLED)
    for run in ended.filter(status__in=failed, finished_at__gte=oldest.created_at):
        evaluation_files_remove(run)
    # its snapshot is of test examples, and no erasure names it: it learned from none of them
    imported = Run.objects.filter(trigger=Run.Trigger.IMPORTED, adapter__isnull=False)
    for run in imported.filter(snapshot__items__completion__prompt__in=prompts).distinct():
        evaluation_files_remove(run)


def without_questions(
    report: Mapping[str, Any], names: Collection[str], *, probes: Collection[str] = ()
) -> Report | None:
    """Return a report without the texts of these prompts and without these probes; None if it has
    none of them. What was measured of the answers stays."""
    entries, kept = report.get("answers", []), report.get("probes", [])
    left = [entry for entry in kept if entry["id"] not in probes]
    if len(left) == len(kept) and not any(e["id"] in names and e["messages"] for e in entries):
        return None
    changed = [_blank(entry) if entry["id"] in names else entry for entry in entries]
    return {**report, "answers": changed, **({"probes": left} if kept else {})}


def report_of_present(run: Run, report: Mapping[str, Any]) -> Report:
    """Return the report of an evaluation without questions that were deleted meanwhile; delete its
    files if there are such.

    Call it in the transaction that stores the report, with the project's row locked: a deletion
    that begins after it finds the version.
    """
    project = run.project
    asked: dict[str, Collection[str]] = {
        name: evaluation_ids(run, name) for name in (PROMPTS_FILE, PROBES_FILE, TEST_FILE)
    }
    reported = [entry["id"] for entry in report.get("answers", [])]
    gone = _gone(project.prompts.all(), [*reported, *asked[PROMPTS_FILE]])
    probes = _gone(project.probes.all(), asked[PROBES_FILE])
    if gone or probes or _gone(project.completions.all(), asked[TEST_FILE]):
        evaluation_files_remove(run)
    return without_questions(report, gone, probes=probes) or dict(report)


def _gone(rows: QuerySet[Any], names: Collection[str]) -> set[str]:
    """Return those of the ids that no row has."""
    numbers = {int(name) for name in names if name.isdecimal()}
    there = rows.filter(pk__in=numbers).values_list("pk", flat=True)
    return {str(pk) for pk in numbers - set(there)}


def _blank(entry: Mapping[str, Any]) -> Report:
    answers = {
        version: [
            {name: "" if name in ("text", "reasoning") else value for name, value in answer.items()}
            for answer in given
        ]
        for version, given in entry["answers"].items()
    }
    return {"id": entry["id"], "messages": [], "answers": answers}


def evaluation_files_remove(run: Run) -> None:
    """Delete what the gate wrote of a run's version, here and in the artifact store. A store that
    does not answer keeps it."""
    shutil.rmtree(evaluation_directory(run), ignore_errors=True)
    try:
        artifact_store().remove_part(run.tree, EVALUATION)
    except StoreError as error:
        log.warning("evaluation_stays_in_the_store", run=run.pk, why=str(error))
