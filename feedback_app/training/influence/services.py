"""Influence reports: requested by an admin, measured by a worker, and runs without a group."""

from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Exists, Max, OuterRef

from artifact_store.errors import StoreError
from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.db.claims import Claim
from feedback_app.feedback.models import Project, VoteEvent
from feedback_app.training.forgetting.services import retraining_objections
from feedback_app.training.influence.groups import (
    KINDS,
    Group,
    Result,
    groups_of,
    ingredients,
    key_of,
    training_items,
)
from feedback_app.training.influence.measuring import (
    Stopped,
    items_measured,
    measure,
    stored_probes,
)
from feedback_app.training.launchers.base import Launcher, LaunchError
from feedback_app.training.models import Adapter, InfluenceReport, Run, Snapshot, SnapshotItem
from feedback_app.training.registry.files import BadAdapter
from feedback_app.training.runs.services import run_note
from feedback_app.training.snapshots.services import (
    copied_at_once,
    snapshot_copy,
    snapshot_queue,
)
from feedback_app.web.errors import UserError
from feedback_app.web.log_context import request_id

log = structlog.get_logger(__name__)

ReportClaim = Claim[InfluenceReport]
Status = InfluenceReport.Status
#: Groups of each kind without which a run may be trained: the first ones of the table.
TOP = 5
#: Losses of pairs have no gradient of a single answer.
PAIR_LOSSES = ("dpo",)
SAVED = 500
#: Claims of one request; the last ends it, as the workers before have died or were stopped.
MAX_CLAIMS = 10


def influence_objection(adapter: Adapter) -> str:
    """Return why the influence on a version cannot be measured; empty if it can."""
    run = adapter.run
    if not run.trains:
        return "It was trained elsewhere: what it learned from is not recorded."
    if adapter.locked_at:
        return "It learned from what was erased since: it is locked."
    if adapter.deleted_at:
        return "Its files were deleted."
    if run.config.get("loss") in PAIR_LOSSES:
        return "Its loss compares pairs of answers: a single answer has no gradient of its own."
    if run.config.get("lora_init") == "pissa" or run.config.get("use_dora"):
        return "Adapters of PiSSA and DoRA are stored in another form than they are trained."
    return ""


def influence_request(*, adapter: Adapter, by: User) -> InfluenceReport:
    """Queue the report of a version; runs that were trained without a group stay in it.

    While it is in progress, a second request changes nothing. Raises UserError.
    """
    if objection := influence_objection(adapter):
        raise UserError(objection)
    with transaction.atomic():
        rows = InfluenceReport.objects.select_for_update()
        report, fresh = rows.get_or_create(adapter=adapter, defaults={"requested_by": by})
        if not fresh and report.active:
            return report
        report.status, report.requested_by = Status.QUEUED, by
        # attempts are counted on, from the next multiple of MAX_CLAIMS: a claim of an earlier
        # report must not hold, nor its job's name be given again
        report.attempt = -(-report.attempt // MAX_CLAIMS) * MAX_CLAIMS
        report.done = report.total = 0
        report.error = report.phase = ""
        report.cancel_requested, report.dispatched_at = False, None
        report.save()
        audit(project=adapter.project, actor=by, action="influence.request", target=adapter.name)
    return report


def influence_cancel(*, report: InfluenceReport, by: User) -> None:
    """Cancel a report: a waiting one ends at once, a running one as soon as its worker sees it.
    Raises UserError if it has ended."""
    rows = InfluenceReport.objects.filter(pk=report.pk)
    with transaction.atomic():
        changed = rows.filter(status=Status.QUEUED).update(
            status=Status.CANCELLED, cancel_requested=True
        ) or rows.filter(status=Status.RUNNING).update(cancel_requested=True)
        if not changed:
            raise UserError("It has already ended.")
        adapter = report.adapter
        audit(project=adapter.project, actor=by, action="influence.cancel", target=adapter.name)


# -- the work


def influence_claim(adapter_id: int) -> ReportClaim | None:
    """Claim a waiting or abandoned report; None if another worker has it or it has ended."""
    rows = InfluenceReport.objects.select_related("adapter__run__snapshot", "adapter__project")
    return Claim.take(rows.filter(pk=adapter_id), error="")


def influence_execute(claim: ReportClaim, launcher: Launcher) -> None:
    """Measure the influence of the examples and store that of the groups."""
    report = claim.row
    report.adapter.run.project = report.adapter.project
    with claim.kept_alive() as alive:
        try:
            if report.cancel_requested:
                raise Stopped
            if claim.attempt % MAX_CLAIMS == 0:
                raise UserError(
                    f"{MAX_CLAIMS - 1} workers in a row died or were stopped while measuring. "
                    "Look for the cause in their logs, then request it again."
                )
            items = items_measured(report.adapter.run)
            measured = measure(report, items, launcher, alive)
        except Stopped:
            claim.update(status=Status.CANCELLED)
            return
        except (UserError, LaunchError, BadAdapter, StoreError, OSError) as error:
            log.warning("influence_failed", adapter=report.adapter.name, why=str(error))
            claim.update(status=Status.FAILED, error=str(error))
            return
        run = report.adapter.run
        size = sum(abs(i.weight * measured.of(i.completion_id, i.desirable)) for i in items)
        result = Result(
            points=measured.points,
            validation_examples=measured.validation_examples,
            measured=len(items),
            examples=run.snapshot.train_total,
            groups=groups_of(ingredients(run.snapshot, items), measured.of, all_influence=size),
        )
        result_store(claim, result, probes=stored_probes(run))


def result_store(claim: ReportClaim, result: Result, *, probes: list[list[Any]]) -> None:
    """End the report with its result: without people who were erased meanwhile, and with the runs
    that an earlier result had."""
    report, project = claim.row, claim.row.adapter.project
    with transaction.atomic():
        rows = InfluenceReport.objects.select_for_update()
        earlier = rows.values_list("result", flat=True).get(pk=report.pk)
        known = {} if earlier is None else Result.stored(earlier).groups
        runs = {(kind, g.key): g.run for kind, groups in known.items() for g in groups}
        people = [int(group.key) for group in result.groups["person"]]
        votes = VoteEvent.objects.filter(user=OuterRef("pk"), completion__project=project)
        here = set(User.objects.filter(Exists(votes), pk__in=people).values_list("pk", flat=True))
        result.groups["person"][:] = [g for g in result.groups["person"] if int(g.key) in here]
        for kind, groups in result.groups.items():
            for group in groups:
                group.run = runs.get((kind, group.key))
        claim.update(status=Status.DONE, result=result.as_json(), error="")
        if probes:
            Run.objects.filter(pk=report.adapter.run_id).update(probes=probes)


def influence_forget(*, user: User, project: Project) -> None:
    """Remove a person who is erased from the project's reports."""
    with transaction.atomic():
        rows = InfluenceReport.objects.select_for_update().filter(adapter__project=project)
        for report in rows.exclude(result=None):
            people = report.result["groups"]["person"]
            report.result["groups"]["person"] = [g for g in people if g["key"] != str(user.pk)]
            if len(report.result["groups"]["person"]) < len(people):
                report.save(update_fields=["result"])


# -- training without a group


def run_without(*, report: InfluenceReport, kind: str, key: str, by: User) -> Run:
    """Queue the run of the report's version again, without the votes of one of the first groups.

    Settings, seed and class weights λ are those of the run, and validation and test examples stay,
    so that the validation losses can be compared. A large snapshot is copied by a worker. Raises
    UserError.
    """
    adapter = report.adapter
    if objection := influence_objection(adapter):
        raise UserError(objection)
    try:
        with transaction.atomic():
            project = Project.objects.select_for_update(no_key=True).get(pk=adapter.project_id)
            row = InfluenceReport.objects.select_for_update().get(pk=report.pk)
            result = Result.stored(row.result) if row.result else None
            group = top_group(result, kind, key)
            snapshot = snapshot_or_queued(adapter.run, kind, key)
            run = _queued(project, adapter.run, snapshot, by)
            group.run = run.number
            row.result = result.as_json() if result else None
            row.save(update_fields=["result"])
            reason = f"{adapter.run} again, without one {KINDS[kind]}'s votes."
            audit(project=project, actor=by, action="run.request", target=str(run), reason=reason)
            run_note(run=run, text=reason)
    except IntegrityError as error:
        raise UserError("Another run is in progress: wait for it or cancel it.") from error
    log.info("run_without", run=run.pk, number=run.number, kind=kind)
    return run


def top_group(result: Result | None, kind: str, key: str) -> Group:
    """Return one of the first groups of a kind. Raises UserError for any other."""
    groups = result.groups.get(kind, [])[:TOP] if result else []
    found = next((group for group in groups if group.key == key), None)
    if found is None:
        raise UserError(f"A run can be trained without one of the first {TOP} groups only.")
    return found


def _queued(project: Project, run: Run, snapshot: Snapshot, by: User) -> Run:
    last = project.runs.aggregate(last=Max("number"))["last"] or 0
    lambdas = {name: run.facts[name] for name in ("lambda_d", "lambda_u") if name in run.facts}
    weighed = run.config.get("loss", "kto") != "sft"
    return Run.objects.create(
        project=project,
        number=last + 1,
        snapshot=snapshot,
        config=run.config | (lambdas if weighed else {}),
        trigger=Run.Trigger.WITHOUT,
        requested_by=by,
        request_id=request_id(),
    )


def snapshot_or_queued(run: Run, kind: str, key: str) -> Snapshot:
    """Return the run's snapshot without a group's votes; of a large one a snapshot that a worker
    makes. Raises UserError if too few examples are left."""
    if not copied_at_once(run.snapshot):
        without = {"snapshot": run.snapshot_id, "kind": kind, "key": key}
        return snapshot_queue(run.project, without=without)
    snapshot = snapshot_without(run.snapshot, kind, key)
    if objections := retraining_objections(run, snapshot):
        raise UserError(" ".join(objections))
    return snapshot


def snapshot_without(
    snapshot: Snapshot, kind: str, key: str, *, queued: Snapshot | None = None
) -> Snapshot:
    """Copy a snapshot, into the `queued` one if there is one, and take a group's votes out of its
    training examples. Call it in a transaction.

    Answers that were tied get no example.
    """
    copy = snapshot_copy(snapshot, queued=queued)
    events = VoteEvent.objects.filter(completion=OuterRef("completion"))
    rows = training_items(snapshot)
    if kind == "person":
        rows = rows.filter(Exists(events.filter(user=int(key))))
    elif kind == "topic":
        rows = rows.filter(completion__topic=key)
    elif kind == "source":
        rows = rows.filter(Exists(events.filter(source=key)))
    gone: list[int] = []
    changed: dict[int, tuple[bool, float]] = {}
    for each in ingredients(snapshot, rows.iterator(chunk_size=SAVED)):
        if all(key_of(vote, each.item.completion, kind) != key for vote in each.votes):
            continue
        values = each.without(kind, key)
        if values is None:
            gone.append(each.item.completion_id)
        elif values != (each.item.desirable, each.item.weight):
            changed[each.item.completion_id] = values
    _change(copy, gone, changed)
    return copy


def _change(copy: Snapshot, gone: list[int], changed: dict[int, tuple[bool, float]]) -> None:
    for start in range(0, len(gone), SAVED):
        copy.items.filter(completion__in=gone[start : start + SAVED]).delete()
    keys = list(changed)
    for start in range(0, len(keys), SAVED):
        items = list(copy.items.filter(completion__in=keys[start : start + SAVED]))
        for item in items:
            item.desirable, item.weight = changed[item.completion_id]
        SnapshotItem.objects.bulk_update(items, ["desirable", "weight"])
    training = copy.items.filter(split="train")
    copy.train_up = training.filter(desirable=True).count()
    copy.train_down = training.filter(desirable=False).count()
    copy.save(update_fields=["train_up", "train_down"])
