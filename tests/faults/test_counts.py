"""No page and no API operation counts or sums a table that grows with a project.

Every page is requested with objects of every kind, and every statement with an aggregate is read:
over a table that grows it must be bounded by a LIMIT inside, or be about one row's own rows, which
ALLOWED lists with the reason. The benchmark of sizes (bench/scale.py) measures the same pages.
"""

import re

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback_app.feedback.figures import services as figures
from feedback_app.feedback.members import figures as members_figures
from feedback_app.feedback.reliability import services as reliability
from feedback_app.serving.project_home import history
from feedback_app.serving.releases import figures as release_figures
from feedback_app.training.snapshots import figures as snapshot_figures
from feedback_app.training.snapshots.content import services as content
from tests.faults.test_crawl import (
    ENDS,
    HOLDER,
    LEAST,
    OPERATIONS,
    PAGES,
    SCOPES,
    request_by_token,
    sign_in,
    text_of,
)
from tests.faults.world import World, make_world

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

#: Tables whose rows are few: of people who administer, or of one row per version or form.
FEW = {
    "accounts_apitoken",
    "accounts_invitation",
    "accounts_membership",
    "feedback_guidelinesversion",
    "feedback_project",
    "feedback_webhook",
    "training_schedule",
    "training_sweep",
}
#: Aggregates over one row's own rows: a part of the statement, and why the rows are few.
ALLOWED = {
    'FROM "feedback_lease" WHERE completion_id =': "the leases of one completion",
    '"training_snapshotitem"."completion_id" IN (': "one person's newest votes",
    '"training_pairbatch"."end" = \'\'': "the open batches of a project: a few of 200 pairs",
    '"training_blindpair"."batch_id" =': "one batch of at most 200 pairs",
    '"training_blindpair"."batch_id" IN (': "the open batches of a project",
    '"training_run"."sweep_id" IN (': "the trials of one page of sweeps: 32 each",
    '"feedback_vote"."updated_at" >=': "one person's votes of a day, or of four weeks",
}
AGGREGATE = re.compile(r"\b(COUNT|SUM|AVG|MIN|MAX)\s*\(", re.IGNORECASE)
TABLE = re.compile(r'\b(?:FROM|JOIN)\s+"(\w+)"', re.IGNORECASE)


def tables() -> set[str]:
    """Return the tables that grow."""
    return {model._meta.db_table for model in apps.get_models(include_auto_created=True)} - FEW


def parts(sql: str) -> list[str]:
    """Return the statement's selects, each without those in its brackets."""
    found: list[str] = []
    stack = [""]
    for piece in re.split(r"([()])", sql):
        if piece == "(":
            stack.append("")
        elif piece == ")" and len(stack) > 1:
            inner = stack.pop()
            if "SELECT" in inner:
                found.append(inner)
                stack[-1] += "(…)"
            else:
                stack[-1] += f"({inner})"
        else:
            stack[-1] += piece
    return [*found, stack[0]]


def unbounded(sql: str) -> list[str]:
    """Return the selects that aggregate over a growing table without a bound."""
    return [
        part
        for part in parts(sql)
        if AGGREGATE.search(part)
        and set(TABLE.findall(part)) & tables()
        and not any(allowed in " ".join(part.split()) for allowed in ALLOWED)
    ]


@pytest.fixture
def bot(monkeypatch: pytest.MonkeyPatch) -> World:
    """A project that is treated as a large one, with the figures that its worker counts."""
    monkeypatch.setattr(figures, "figures_small", lambda rows: False)
    world = make_world("bot")
    for name, count in (
        (members_figures.NAME, members_figures.members_count),
        (snapshot_figures.NAME, snapshot_figures.snapshot_count),
        (release_figures.NAME, release_figures.up_rates_count),
        (history.NAME, history.history_count),
        (reliability.NAME, reliability.reliability_count),
        (content.NAME, content.content_count),
    ):
        figures.figures_stored(project=world.project, name=name, rows=world.project.votes.all())
        [due] = figures.figures_due(name)
        assert figures.figures_count(pk=due.pk, count=count)
    return world


def test_rule_finds_counts_and_accepts_bounded_ones() -> None:
    count = 'SELECT COUNT(*) FROM "feedback_vote" WHERE "project_id" = 1'
    inner = 'SELECT 1 FROM "feedback_vote" WHERE "project_id" = 1 LIMIT 101'
    assert unbounded(count) == [count]
    assert unbounded(f"SELECT COUNT(*) FROM ({inner}) subquery") == []  # noqa: S608
    assert unbounded(f'SELECT ({count}) AS "n" FROM "feedback_project"') == [count]  # noqa: S608
    assert unbounded(inner) == []


def test_pages_count_no_table(bot: World) -> None:
    client, faults = sign_in(bot.people["owner"]), {}
    for route in PAGES:
        if route.name in ENDS or LEAST[route.name] == HOLDER:
            continue
        for url in route.urls("bot", values_of(bot)):
            with CaptureQueriesContext(connection) as queries:
                text_of(client.get(url))
            for query in queries:
                faults |= dict.fromkeys(unbounded(query["sql"]), url)
    assert not faults, report(faults)


def test_operations_count_no_table(bot: World) -> None:
    faults = {}
    for route in OPERATIONS:
        secret = bot.tokens[SCOPES[route.name] or next(iter(bot.tokens))]
        for url in route.urls("bot", values_of(bot)):
            with CaptureQueriesContext(connection) as queries:
                text_of(request_by_token(route, url.replace("<slug>", "bot"), secret))
            for query in queries:
                faults |= dict.fromkeys(unbounded(query["sql"]), url)
    assert not faults, report(faults)


def report(faults: dict[str, str]) -> str:
    return "\n".join(f"{url}: {' '.join(sql.split())}" for sql, url in faults.items())


def values_of(world: World) -> dict[str, list[object]]:
    """Return ids of the project's objects; a page answers 404 for those of another kind."""
    kinds = (
        world.project.completions,
        world.project.webhooks,
        world.project.import_jobs,
        world.project.memberships,
        world.project.traffic_splits,
    )
    pks = {pk for rows in kinds for pk in rows.values_list("pk", flat=True)}
    pks |= {user.pk for user in world.people.values()}
    return world.values | {"pk": sorted(pks), "secret": [world.link]}
