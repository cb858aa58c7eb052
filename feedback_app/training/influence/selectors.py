"""The rows of an influence report's table."""

from dataclasses import dataclass

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Source, Vote
from feedback_app.training.influence.groups import Group, Result
from feedback_app.training.influence.services import TOP
from feedback_app.training.models import InfluenceReport, Run
from feedback_app.training.sweeps.probes import validation_loss

#: Estimates below this share of all influence say nothing.
NOTHING = 0.0005


@dataclass(frozen=True)
class Measurement:
    """A run that was trained without a group, and the validation losses of both versions."""

    run: Run
    before: float | None
    after: float | None

    @property
    def difference(self) -> float | None:
        """By how much the loss without the group is higher; negative: the version is better."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before


@dataclass(frozen=True)
class Row:
    """A group of votes as the table shows it; `top`: a run may be trained without it."""

    place: int
    group: Group
    name: str
    top: bool
    measurement: Measurement | None = None

    @property
    def percent(self) -> float:
        """The estimate in percent of all examples' influence."""
        return 100 * self.group.estimate

    @property
    def effect(self) -> str:
        """What the version would be without the group: better, worse or same."""
        if abs(self.group.estimate) < NOTHING:
            return "same"
        return "worse" if self.group.estimate > 0 else "better"


def result_of(report: InfluenceReport | None) -> Result | None:
    """Return what a report has found, None for one that has not ended yet."""
    return Result.stored(report.result) if report is not None and report.result else None


def influence_rows(report: InfluenceReport, kind: str) -> list[Row]:
    """Return the groups of a kind without measurements, those that harm most first. A person who
    is gone has no row."""
    result = result_of(report)
    groups = result.groups[kind] if result else []
    names = names_of(groups, kind)
    known = [(place, group) for place, group in enumerate(groups) if group.key in names]
    return [
        Row(number, group, names[group.key], top=place < TOP)
        for number, (place, group) in enumerate(known, start=1)
    ]


def names_of(groups: list[Group], kind: str) -> dict[str, str]:
    """Return what groups are called, by their keys; people who are gone are left out."""
    if kind == "person":
        people = User.objects.in_bulk([int(group.key) for group in groups])
        return {str(pk): str(user) for pk, user in people.items()}
    if kind == "source":
        labels = dict(Source.choices)
        return {group.key: str(labels.get(group.key, group.key)) for group in groups}
    return {group.key: group.key or "No topic" for group in groups}


def with_measurements(rows: list[Row], report: InfluenceReport) -> list[Row]:
    """Return rows with the runs that were trained without their groups, in one query."""
    numbers = [row.group.run for row in rows if row.group.run is not None]
    project = report.adapter.project_id
    runs = {run.number: run for run in Run.objects.filter(project=project, number__in=numbers)}
    before = validation_loss(report.adapter.run)
    return [
        Row(
            row.place,
            row.group,
            row.name,
            row.top,
            Measurement(runs[row.group.run], before, validation_loss(runs[row.group.run]))
            if row.group.run in runs
            else None,
        )
        for row in rows
    ]


def influence_of_person(user: User) -> list[dict[str, object]]:
    """Return what reports say about a person's votes, for their export."""
    projects = Vote.objects.filter(user=user).values("project")
    rows = InfluenceReport.objects.filter(adapter__project__in=projects).exclude(result=None)
    return [
        {
            "version": report.adapter.name,
            "votes": group["votes"],
            "examples": group["examples"],
            "estimate": group["estimate"],
        }
        for report in rows.select_related("adapter").order_by("pk").iterator(chunk_size=20)
        for group in report.result["groups"]["person"]
        if group["key"] == str(user.pk)
    ]
