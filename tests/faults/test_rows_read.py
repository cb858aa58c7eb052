"""No page and no API operation reads a large part of a table, on PostgreSQL.

The project of bench/scale_parts is filled at a small size, the bounds of lists and counts are
lowered, and PostgreSQL counts the rows that each request reads. A sequential scan, a count of a
table, or a list that looks through all rows reads thousands.
"""

from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client

from bench.scale_parts.operations import Operation, operations
from feedback_app.accounts.models import User
from feedback_app.db import bounded_count
from feedback_app.feedback.adjudication import selectors as adjudication
from feedback_app.feedback.examples import listing
from feedback_app.feedback.flags import selectors as flags
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects import views as projects
from feedback_app.feedback.quality import selectors as quality
from feedback_app.privacy import activity
from feedback_app.serving.traffic_splits import report

pytestmark = [pytest.mark.django_db, pytest.mark.long]

COMPLETIONS = 5_000
#: Rows of one table that a request may read. Completions are 5,200, votes 15,400.
MOST = 2_400
READ = """
    SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
"""
#: Tables of which a page may read more, and why that does not grow with the project.
ACCEPTED = {
    ("resolve", "feedback_completion"): "read from the index alone, once the rows are vacuumed",
    ("person", "training_snapshotitem"): "five snapshots that are small are read as a whole",
}


def rows_read() -> dict[str, int]:
    """Return the rows of each table that this transaction has read so far."""
    with connection.cursor() as cursor:
        cursor.execute(READ)
        return dict(cursor.fetchall())


def request(operation: Operation, world: dict[str, Any], clients: dict[str, Client]) -> int:
    number = world["number"] = world["number"] + 1
    pools = (world["places"].get(name) or [world["link"]] for name in operation.pools)
    url = operation.url(world, [values[number % len(values)] for values in pools])
    headers = dict(operation.headers)
    if operation.who in world["tokens"]:
        headers["Authorization"] = f"Bearer {world['tokens'][operation.who]}"
    return clients[operation.who].get(url, headers=headers).status_code


@pytest.mark.skipif(
    connection.vendor != "postgresql", reason="PostgreSQL counts rows that are read"
)
def test_requests_read_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.scale_parts.fill import Filling
    from bench.scale_parts.places import figures_store, fit_store, places

    filled = Filling(COMPLETIONS).fill()
    project = Project.objects.get(slug="scale")
    for module, name, most in (
        (bounded_count, "COUNTED", 200),
        (bounded_count, "LISTED", 200),
        (adjudication, "LISTED", 200),
        (flags, "LISTED", 200),
        (projects, "LISTED", 200),
        (listing, "WINDOW", 200),
        (quality, "WINDOW", 200),
        (activity, "VOTES_READ", 100),
        (report, "ANSWERS_READ", 100),
    ):
        monkeypatch.setattr(module, name, most)
    figures_store(project)
    fit_store(project)
    world = filled | {"project": project.slug, "places": places(project), "number": 0}
    clients = {name: Client() for name in ("visitor", *filled["tokens"])}
    for who, email in {
        "owner": "owner@example.com",
        "admin": "admin@example.com",
        "viewer": "viewer@example.com",
        "annotator": "p11@example.com",
    }.items():
        clients[who] = Client()
        clients[who].force_login(User.objects.get(email=email))

    with connection.cursor() as cursor:
        # a table this small is read as a whole where an index would be used in a large one
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_hashjoin = off")
        cursor.execute("SET LOCAL enable_mergejoin = off")
    faults = []
    for operation in operations():
        if operation.post:
            continue
        cache.clear()
        before = rows_read()
        assert request(operation, world, clients) in (200, 204, 286, 302), operation.name
        faults += [
            f"{operation.name}: {count - before.get(table, 0):,} rows of {table}"
            for table, count in rows_read().items()
            if count - before.get(table, 0) > MOST and (operation.route.name, table) not in ACCEPTED
        ]
    assert not faults, "\n".join(faults)
