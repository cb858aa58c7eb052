"""The topics of a project's prompts, read along an index."""

from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.selectors import topics
from tests.conftest import prompts_make


def test_topics_are_those_of_the_projects_prompts_in_order(project: Project, admin: User) -> None:
    other = project_create(slug="cook", name="Cook", base_model="tiny", owner=admin)
    named = [(project, "travel"), (project, ""), (project, "bread"), (project, "travel")]
    for number, (place, topic) in enumerate([*named, (other, "rice")]):
        [prompt] = prompts_make(place, [f"Question {number}?"])
        prompt.topic = topic
        prompt.save(update_fields=["topic"])

    assert topics(project) == ["bread", "travel"]


def test_topics_are_found_without_reading_all_prompts(project: Project) -> None:
    with CaptureQueriesContext(connection) as read:
        topics(project)
    sql = read.captured_queries[0]["sql"]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # it prefers that for few rows
            cursor.execute(f"EXPLAIN {sql}")
        else:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        plan = str(cursor.fetchall())

    assert "prompt_topic_names" in plan
    assert "Seq Scan on feedback_prompt" not in plan
    assert "SCAN feedback_prompt" not in plan
