"""The rules of a project's gate, and the gate's verdict on an evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Count, Max

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Source, Split, Vote
from feedback_app.training.gate.measures import Measures, People
from feedback_app.training.gate.rules import GateResult, gate_decide
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import Adapter, GateRules, Snapshot
from feedback_app.web.errors import Conflict

#: Format of the evaluation's report from which the gate can be decided again.
FORMAT = 2
PREVIEWED = 10


def gate_settings(project: Project) -> GateSettings:
    """Return the rules in force: the latest saved ones, or the defaults."""
    latest = project.gate_rules.order_by("-number").first()
    return GateSettings() if latest is None else GateSettings.from_json(latest.rules)


def gate_settings_save(
    *, project: Project, settings: GateSettings, by: User, before: GateSettings | None = None
) -> GateRules | None:
    """Store new rules as the next version. Returns None if nothing has changed.

    Raises Conflict if other rules than `before` are in force.
    """
    try:
        with transaction.atomic():
            in_force = gate_settings(project)
            if settings == in_force:
                return None
            if before is not None and before != in_force:
                raise Conflict("These rules were changed by somebody else at the same moment.")
            last = project.gate_rules.aggregate(last=Max("number"))["last"] or 0
            rules = GateRules.objects.create(
                project=project, number=last + 1, rules=settings.as_json(), saved_by=by
            )
            audit(project=project, actor=by, action="gate.rules", target=str(rules))
    except IntegrityError as error:
        raise Conflict(
            "Somebody else saved rules just now: load the page again and look at them first."
        ) from error
    return rules


def gate_of_report(
    report: Mapping[str, Any],
    settings: GateSettings,
    *,
    candidate: str,
    people: People | None = None,
) -> GateResult:
    """Return the gate's verdict on an evaluation of `candidate`, live and base."""
    names = [name for name in report["candidates"] if name not in (candidate, "base")]
    measures = Measures(report, candidate, names[0] if names else "base", people)
    return gate_decide(measures, settings)


def people_of(snapshot: Snapshot) -> People:
    """Return whose votes are behind the training examples of a snapshot.

    All visitors of a share link count as one person; imported labels count for no person.
    """
    votes = (
        Vote.objects.standing()
        .filter(
            completion__snapshot_items__snapshot=snapshot,
            completion__snapshot_items__split=Split.TRAIN,
        )
        .order_by()
        # the relation of a higher layer, by name only
        .values_list("source", "user", "user__share_visitor__link")
        .annotate(n=Count("pk"))
    )
    total, counts = 0, dict[tuple[str, int], int]()
    for source, user, link, n in votes:
        total += n
        if source != Source.IMPORT:
            key = ("link", link) if link else ("user", user)
            counts[key] = counts.get(key, 0) + n
    return People(len(counts), max(counts.values(), default=0) / total if total else 0.0)


def gate_decide_again(
    adapter: Adapter, report: Mapping[str, Any], settings: GateSettings | None = None
) -> GateResult:
    """Return the verdict on a version that was judged before, by the rules of that verdict unless
    others are passed. Whose votes it learned from is taken from the stored gate."""
    if settings is None:
        settings = GateSettings.from_json(adapter.gate["settings"])
    stored = next((rule for rule in adapter.gate["rules"] if rule["key"] == "concentration"), None)
    people = None if stored is None else People(stored["n"], stored["value"])
    return gate_of_report(report, settings, candidate=adapter.name, people=people)


@dataclass(frozen=True)
class Preview:
    """A version with its verdict and the one that other rules would have given; `text` is the
    sentence of the latter. None: its evaluation is too old to be decided again."""

    adapter: Adapter
    outcome: str | None
    text: str

    @property
    def differs(self) -> bool:
        return self.outcome is not None and self.outcome != self.adapter.gate_outcome


def gate_preview(project: Project, settings: GateSettings) -> list[Preview]:
    """Return what these rules would have said of the latest versions, newest first.

    Computed from the stored measures; nothing is sampled or trained.
    """
    latest = project.adapters.order_by("-pk")[:PREVIEWED]
    return [_preview(adapter, settings) for adapter in latest]


def _preview(adapter: Adapter, settings: GateSettings) -> Preview:
    if adapter.report.get("format") != FORMAT:
        return Preview(adapter, None, "Evaluated before these rules existed.")
    result = gate_decide_again(adapter, adapter.report, settings)
    return Preview(adapter, result.outcome, result.sentence)
