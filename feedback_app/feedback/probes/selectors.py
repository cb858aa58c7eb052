"""Probes of a project, and what the newest version did with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from feedback_app.feedback.models import BASE_VERSION, Probe, Project

Answers = list[Mapping[str, Any]]


@dataclass(frozen=True)
class ProbeResult:
    """The answers of a version, and of the version that was live then, to one probe.

    Each answer has its `text`, whether it `kept` the probe, and `timed_out` if its pattern took
    too long. Without answers the prompt was too long for the model.
    """

    version: str
    run: int
    live: str
    answers: Answers
    live_answers: Answers

    @property
    def kept(self) -> bool:
        return 2 * self.answers_kept >= len(self.answers)

    @property
    def answers_kept(self) -> int:
        return sum(answer["kept"] for answer in self.answers)

    @property
    def live_kept(self) -> int:
        return sum(answer["kept"] for answer in self.live_answers)

    @property
    def timed_out(self) -> bool:
        return any(answer.get("timed_out") for answer in [*self.answers, *self.live_answers])


def probes_active(project: Project) -> QuerySet[Probe]:
    """Return the probes that the gate checks, newest first."""
    rows = Probe.objects.filter(project=project, retired_at=None)
    return rows.select_related("created_by").order_by("-pk")


def probes_retired(project: Project) -> QuerySet[Probe]:
    """Return the others, last retired first."""
    rows = Probe.objects.filter(project=project, retired_at__isnull=False)
    return rows.select_related("created_by").order_by("-retired_at", "-pk")


def newest_results(project: Project) -> dict[int, ProbeResult]:
    """Return the results in the gate report of the newest version, by probe."""
    # the relation of a higher layer, by name only; of its report nothing else is read
    newest = project.adapters.order_by("-pk").values_list(
        "name", "run__number", "gate__opponent", "report__probes"
    )
    name, run, opponent, probes = newest.first() or ("", 0, None, None)
    live = opponent or BASE_VERSION
    return {
        int(entry["id"]): ProbeResult(
            version=name,
            run=run,
            live=live,
            answers=entry["answers"].get(name, []),
            live_answers=entry["answers"].get(live, []),
        )
        for entry in probes or []
    }


def checked_by_gate(project: Project) -> bool:
    """Return whether the rule about probes is on in the rules in force."""
    # by name only, as above; without saved rules all are on
    rules = project.gate_rules.order_by("-number").values_list("rules", flat=True).first()
    return rules is None or "probes" in rules["margins"]
