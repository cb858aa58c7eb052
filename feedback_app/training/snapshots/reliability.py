"""Example weights by the reliability of the people who voted (feedback/reliability).

An example's weight is the margin of its label among the votes. Weighed, a vote counts as much as
its person is reliable: somebody who votes at random adds nothing, and an example that only such
people support keeps next to no weight. Labels do not change. Decided examples and imported labels
keep their weight.

The votes are summed in the database: a million examples take no memory here.
"""

from collections.abc import Mapping

from django.db import connection

from feedback_app.feedback.models import Completion, Example, Project, Source, Split, Verdict, Vote
from feedback_app.feedback.reliability.services import weights_of
from feedback_app.training.models import Snapshot, SnapshotItem
from feedback_app.training.snapshots.pieces import END, WHOLE, Pieces

#: An example keeps at least this weight: none would be no example.
LEAST = 0.01


def items_weigh(snapshot: Snapshot, pieces: Pieces = WHOLE) -> None:
    """Multiply the weights of a new snapshot's items, if its project weighs by reliability."""
    weights = weights_of(snapshot.project)
    if not weights:
        return
    items = _name(SnapshotItem)
    statement = f"""
        WITH {_people(weights)}, trust AS ({_trust(items, "snapshot_id", weights)})
        UPDATE {items} SET weight = {_weighed(items)} FROM trust
        WHERE {items}.snapshot_id = %s AND trust.completion_id = {items}.completion_id
    """  # noqa: S608
    for after, upto in pieces.ranges(snapshot.project):
        with pieces.part(), connection.cursor() as cursor:
            cursor.execute(statement, [snapshot.pk, after, upto, snapshot.pk])


def class_ratios(project: Project) -> dict[bool, float]:
    """Return by label what weighing leaves of the training examples' summed weights, in (0, 1]."""
    weights = weights_of(project)
    if not weights:
        return {True: 1.0, False: 1.0}
    examples = _name(Example)
    statement = f"""
        WITH {_people(weights)}, trust AS ({_trust(examples, "project_id", weights)})
        SELECT desirable, SUM({_weighed(examples)}), SUM(weight) FROM {examples}
        LEFT JOIN trust ON trust.completion_id = {examples}.completion_id
        WHERE project_id = %s AND split = %s GROUP BY desirable
    """  # noqa: S608
    with connection.cursor() as cursor:
        owner, split = project.pk, Split.TRAIN.value
        cursor.execute(statement, [owner, 0, END, owner, split])
        sums = cursor.fetchall()
    return {True: 1.0, False: 1.0} | {bool(label): new / old for label, new, old in sums}


def _name(model: type[Completion | Example | SnapshotItem | Vote]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def _people(weights: Mapping[int, float]) -> str:
    """Return the table of people and their weights, whose values are numbers of ours."""
    rows = ", ".join(f"({int(user)}, {float(weight)!r})" for user, weight in weights.items())
    return f"person (user_id, weight) AS (VALUES {rows})"


def _weighed(rows: str) -> str:
    """Return the SQL of a row's new weight, within [LEAST, its bound of 1]."""
    weight = f"{rows}.weight * COALESCE(trust.factor, 1)"
    return f"CASE WHEN {weight} < {LEAST} THEN {LEAST} WHEN {weight} > 1 THEN 1 ELSE {weight} END"


def _trust(rows: str, owner: str, weights: Mapping[int, float]) -> str:
    """Return the SQL of each example's factor, of those of an owner in a range of answers: its
    margin with weighed votes by the one without.

    Where the label has no majority of all votes, as the cap left some out, it is the mean weight of
    the votes for it. A tie that became an example has no other measure.
    """
    says = (
        f"(CASE WHEN (vote.verdict = '{Verdict.UP.value}') = example.desirable THEN 1 ELSE -1 END)"
    )
    weight = f"""CASE WHEN vote.source = '{Source.IMPORT.value}' THEN 1.0
        ELSE COALESCE(person.weight, {weights[0]!r}) END"""
    agrees = f"CASE WHEN {says} = 1 THEN 1.0 ELSE 0.0 END"
    return f"""
        SELECT example.completion_id AS completion_id,
            CASE WHEN SUM({says}) > 0 THEN SUM({says} * {weight}) / SUM({says})
            WHEN SUM({agrees}) > 0 THEN SUM({agrees} * {weight}) / SUM({agrees})
            ELSE 1.0 END AS factor
        FROM {rows} AS example
        JOIN {_name(Completion)} AS answer ON answer.id = example.completion_id
        JOIN {_name(Vote)} AS vote ON vote.completion_id = example.completion_id
        LEFT JOIN person ON person.user_id = vote.user_id
        WHERE example.{owner} = %s AND example.completion_id > %s AND example.completion_id <= %s
            AND answer.decided = '' AND vote.set_aside_id IS NULL
        GROUP BY example.completion_id
    """  # noqa: S608
