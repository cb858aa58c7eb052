"""Reads over a project's prompts, completions and samplings."""

from typing import Literal

from django.db import connection

from feedback_app.feedback.models import Completion, Project, Prompt, Sampling


def distinct_values(
    *,
    project: Project,
    field: Literal["version", "topic"],
    model: type[Completion | Prompt] = Completion,
    where: str = "",
) -> list[str]:
    """Return at most fifty distinct values of a column, in order; "" is none of them.

    `where` is SQL that ends in AND. The query steps along an index of the project's values, which
    must exist for `where`: then its cost depends on the number of values, not of rows.
    """
    table = connection.ops.quote_name(model._meta.db_table)
    queue = f"FROM {table} WHERE project_id = %s AND {where} {field}"
    step = f"SELECT {field} {queue} > {{}} ORDER BY {field} LIMIT 1"
    values = f"""
        WITH RECURSIVE found(value) AS (
            SELECT ({step.format("''")})
            UNION ALL
            SELECT ({step.format("found.value")}) FROM found WHERE found.value IS NOT NULL
        )
        SELECT value FROM found WHERE value IS NOT NULL LIMIT 50
    """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(values, [project.pk, project.pk])
        return [value for (value,) in cursor.fetchall()]


def topics(project: Project) -> list[str]:
    """Return at most fifty topics of the project's prompts, in order."""
    named = "NOT (topic = '') AND"  # as in the index
    return distinct_values(project=project, model=Prompt, field="topic", where=named)


def sampling_active(project: Project) -> Sampling | None:
    """Return the queued or running sampling, if any."""
    return project.samplings.filter(status__in=Sampling.ACTIVE).first()


def sampling_latest(project: Project) -> Sampling | None:
    """Return the newest sampling, whatever its status."""
    return project.samplings.order_by("-pk").first()


def sampling_stuck(project: Project) -> Sampling | None:
    """Return the newest sampling if it has failed, or waits for the engine after an error."""
    latest = sampling_latest(project)
    if latest is None or not latest.error:
        return None
    return latest if latest.active or latest.status == Sampling.Status.FAILED else None
