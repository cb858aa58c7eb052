"""What a dossier says of a version. People are numbers, as in the audit trail: the file leaves the
installation, where an erasure cannot reach it."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Q
from django.utils import timezone

from feedback_app.accounts.models import AuditEvent
from feedback_app.serving.lineage.selectors import manifest_of, version_lineage
from feedback_app.serving.models import TrafficSplit
from feedback_app.serving.traffic_splits.report import Side, split_report
from feedback_app.training.gate.people.selectors import batch_progress
from feedback_app.training.models import Adapter, Run, Snapshot

#: Releases, splits and audit events of a version that are written, the newest ones.
RELEASES, SPLITS, EVENTS = 100, 5, 100


def dossier_content(adapter: Adapter) -> dict[str, Any]:
    """Return the dossier as JSON values. The adapter has its project, run and snapshot."""
    content = {
        "installation": {"prospect": prospect_version(), "written_at": timezone.now()},
        "project": {"name": adapter.project.name, "slug": adapter.project.slug},
        "version": version_part(adapter),
        "run": run_part(adapter.run),
        "snapshot": snapshot_part(adapter.run.snapshot),
        "gate": gate_part(adapter),
        "splits": splits_part(adapter),
        "approvals": approvals_part(adapter),
        "audit": audit_part(adapter),
        "lineage": lineage_part(adapter),
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, cls=DjangoJSONEncoder))
    return plain


def prospect_version() -> str:
    try:
        return version("prospect")
    except PackageNotFoundError:
        return ""


def version_part(adapter: Adapter) -> dict[str, Any]:
    manifest = manifest_of(adapter)
    return {
        "name": adapter.name,
        "sha256": adapter.sha256,
        "created_at": adapter.created_at,
        "discarded_at": adapter.discarded_at,
        "files": manifest.get("files", {}),
        "base_model": adapter.project.base_model,
        "base_sha256": manifest.get("base_sha256", ""),
        "live": adapter.project.live_version == adapter.name,
    }


def run_part(run: Run) -> dict[str, Any]:
    return {
        "number": run.number,
        "trigger": run.trigger,
        "requested_by": person(run.requested_by_id),
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "settings": run.config,
        # device, precision, λ, libraries, hardware: what the trainer reported at its start
        "facts": run.facts,
    }


def snapshot_part(snapshot: Snapshot) -> dict[str, Any]:
    splits = ("train", "validation", "test")
    return {
        "sha256": snapshot.sha256,
        "created_at": snapshot.created_at,
        **{
            f"{split}_{label}": getattr(snapshot, f"{split}_{label}")
            for split in splits
            for label in ("up", "down")
        },
        "left_out": snapshot.left_out,
        "left_out_people": snapshot.left_out_people,
    }


def gate_part(adapter: Adapter) -> dict[str, Any]:
    """Return the verdict with its rules, and each version's measures; answers stay here, and the
    hash says which report it was."""
    report = json.dumps(adapter.report, sort_keys=True, ensure_ascii=False)
    progress = batch_progress(adapter)
    return {
        "outcome": adapter.gate_outcome,
        "report": adapter.gate,
        "measures": adapter.report.get("candidates", {}),
        "evaluation_sha256": hashlib.sha256(report.encode()).hexdigest(),
        "judge": adapter.report.get("judge"),
        "people": progress.batch.counts if progress else None,
    }


def splits_part(adapter: Adapter) -> list[dict[str, Any]]:
    found = TrafficSplit.objects.filter(
        Q(candidate=adapter) | Q(live_version=adapter.name), project=adapter.project
    )
    newest = found.select_related("candidate").order_by("-pk")[:SPLITS]
    return [split_part(split) for split in newest]


def split_part(split: TrafficSplit) -> dict[str, Any]:
    report = split_report(split)
    return {
        "candidate": split.candidate.name,
        "live": split.live_version,
        "percent": split.percent,
        "status": split.status,
        "reason": split.reason,
        "started_by": person(split.started_by_id),
        "started_at": split.started_at,
        "ended_at": split.ended_at,
        "verdict": report.verdict,
        "sides": [side_part(side) for side in report.sides],
    }


def side_part(side: Side) -> dict[str, Any]:
    rate = side.rate
    return {
        "version": side.version,
        "conversations": side.conversations,
        "votes": rate.votes if rate else 0,
        "ups": rate.ups if rate else 0,
        "low": rate.low if rate else None,
        "high": rate.high if rate else None,
    }


def approvals_part(adapter: Adapter) -> list[dict[str, Any]]:
    """Return the releases, the newest first: who made the version live, and why."""
    return [
        {
            "since": release.since,
            "until": release.until,
            "live": release.live,
            "by": person(release.released_by_id) or "automatic",
            "reason": release.reason,
            "gate_passed": adapter.gate_won,
        }
        for release in adapter.releases.order_by("-pk")[:RELEASES]
    ]


def audit_part(adapter: Adapter) -> list[dict[str, Any]]:
    """Return the events of the version and its run, with their places in the chain of hashes."""
    events = AuditEvent.objects.filter(
        project=adapter.project,
        target__in=(adapter.name, str(adapter.run)),
        created_at__gte=adapter.run.created_at,
    )
    fields = ("number", "created_at", "action", "actor_number", "target", "reason", "chain")
    rows = list(events.order_by("-created_at", "-pk").values(*fields)[:EVENTS])
    for row in rows:
        row["actor"] = person(row.pop("actor_number"))
    return rows


def lineage_part(adapter: Adapter) -> dict[str, Any]:
    """Return the versions that it was started from, with their hashes, and those after it."""
    lineage = version_lineage(adapter)
    before = {
        found.name: found
        for found in Adapter.objects.filter(project=adapter.project, name__in=lineage.before)
        .select_related("run__snapshot")
        .defer("report", "gate")
    }
    return {
        "started_from": [
            {
                "name": name,
                "sha256": before[name].sha256,
                "snapshot_sha256": before[name].run.snapshot.sha256,
            }
            for name in lineage.before
            if name in before
        ],
        "continued_by": lineage.after,
    }


def person(pk: int | None) -> str:
    """Return how a dossier names a person; empty for nobody, or somebody who was erased."""
    return "" if pk is None else f"person {pk}"
