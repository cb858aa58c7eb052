"""Fill a database with a project of many answers in a few statements, on either database."""

from typing import Any

from django.db import connection, models

TEXT = (
    "Open the settings, choose **Account**, then *Security*. Press the button that says so, "
    "wait for the mail, and follow the link in it. The link works for one hour; after that "
    "ask for another one. If no mail comes, look into the folder for unwanted mail first.\n\n"
    "- It is case-sensitive.\n- It has to be twelve characters long.\n"
)
BATCH = 100_000


def numbers(first: int, last: int) -> str:
    """Return a FROM clause whose rows are n = first … last."""
    if connection.vendor == "postgresql":
        return f"generate_series({first}, {last}) AS numbers(n)"
    return (
        f"(WITH RECURSIVE numbers(n) AS (VALUES({first}) UNION ALL SELECT n + 1 FROM numbers "
        f"WHERE n < {last}) SELECT n FROM numbers) AS numbers"
    )


def insert(
    sample: models.Model, *, count: int, varying: dict[str, str], where: str = "TRUE"
) -> None:
    """Insert a row like `sample` for each n from 1 to `count` for which `where` holds.

    `varying` gives columns as SQL over n, and `where` is SQL over n.
    """
    columns, values, parameters = [], [], []
    for field in sample._meta.concrete_fields:
        columns.append(connection.ops.quote_name(field.column))
        if field.column in varying:
            values.append(varying[field.column])
        else:
            values.append("%s")
            parameters.append(field.get_db_prep_save(field.pre_save(sample, True), connection))
    table = connection.ops.quote_name(sample._meta.db_table)
    with connection.cursor() as cursor:
        for first in range(1, count + 1, BATCH):
            last = min(count, first + BATCH - 1)
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) "
                f"SELECT {', '.join(values)} FROM {numbers(first, last)} WHERE {where}",
                parameters,
            )


def fill(*, slug: str, completions: int, people: int, judged: int = 0) -> dict[str, Any]:
    """Create a project with two answers per prompt; the first `judged` answers have a vote.

    Call it on an empty, migrated database. Returns {'project': …, 'people': […]}.
    """
    from feedback_app.accounts.models import Role, User
    from feedback_app.feedback.members.services import member_set
    from feedback_app.feedback.models import Completion, Example, Prompt, Source, Split, Vote
    from feedback_app.feedback.projects.services import project_create

    owner = User.objects.create_user("owner@example.com", "x")
    project = project_create(slug=slug, name="Bench", base_model="bench", owner=owner)
    # the benchmark measures the rate, so it is not limited
    project.votes_per_hour = 0
    project.save(update_fields=["votes_per_hour"])
    prompts = -(-completions // 2)
    joined = "CAST(n AS TEXT)"
    insert(
        Prompt(
            project=project,
            messages=[{"role": "user", "content": "How do I change my password on the tablet?"}],
            topic="accounts",
            split=Split.TRAIN,
            source=Source.IMPORT,
        ),
        count=prompts,
        varying={"id": "n", "content_hash": joined},
    )
    insert(
        Completion(
            project=project,
            text=TEXT,
            version="base",
            topic="accounts",
            finish_reason=Completion.Finish.STOP,
            source=Source.IMPORT,
            queued=True,
        ),
        count=completions,
        varying={
            "id": "n",
            "prompt_id": f"(n - 1) %% {prompts} + 1",
            "queue_position": f"(n - 1) / {prompts}",
            "vote_count": f"CASE WHEN n <= {judged} THEN 1 ELSE 0 END",
            "content_hash": joined,
        },
    )
    if judged:
        insert(
            Vote(user=owner, project=project, verdict="up", source=Source.ANNOTATE),
            count=judged,
            varying={"id": "n", "completion_id": "n"},
        )
        insert(
            Example(project=project, desirable=True, weight=1, split=Split.TRAIN),
            count=judged,
            varying={"completion_id": "n"},
        )
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # explicit ids were inserted: the sequences must follow
            for table in ("feedback_prompt", "feedback_completion", "feedback_vote"):
                cursor.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "
                    f"(SELECT coalesce(max(id), 1) FROM {table}))"
                )
            cursor.execute("VACUUM ANALYZE")
        else:
            cursor.execute("PRAGMA optimize=0x10002")
    users = []
    for number in range(people):
        user = User.objects.create_user(f"p{number}@example.com", "x")
        member_set(project=project, user=user, role=Role.ANNOTATOR)
        users.append(user)
    return {"project": project, "people": users}
