"""Import in the browser: upload, preview, start, progress, report."""

import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Example, ImportJob, ImportRefusal, Project, Vote
from feedback_app.feedback.tasks import import_file

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]

HOSTILE = '<script>alert(1)</script><b hx-get="/">x</b>'
ROWS = [
    {"prompt": HOSTILE, "completion": HOSTILE, "label": True},
    {"prompt": "Q2", "chosen": "good", "rejected": "bad"},
    {"prompt": "Q3", "completion": HOSTILE, "label": "maybe"},
]


def jsonl(rows: list[Any], name: str = "votes.jsonl") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, "\n".join(json.dumps(row) for row in rows).encode())


def send(client: Client, file: SimpleUploadedFile) -> Any:
    return client.post(reverse("imports", args=["bot"]), {"file": file})


def uploaded(client: Client, rows: list[Any] = ROWS) -> ImportJob:
    answer = send(client, jsonl(rows))
    job = ImportJob.objects.latest("pk")
    assert answer["Location"] == page(job)
    return job


def page(job: ImportJob, name: str = "import-job") -> str:
    return reverse(name, args=[job.project.slug, job.pk])


def text(client: Client, job: ImportJob, **extra: Any) -> str:
    return client.get(page(job), **extra).content.decode()


def test_upload_previews_parsed_rows_and_writes_nothing(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    job = uploaded(client)

    shown = text(client, job)

    assert "Examples with labels" in shown
    assert "Pairs" in shown
    assert "is neither true nor false" in shown
    assert "<script>alert(1)" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    assert '<b hx-get="/"' not in shown
    assert (job.status, job.rows) == ("preview", 0)
    assert not project.prompts.exists()


def test_start_import_and_report(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    job = uploaded(client)

    client.post(page(job, "import-start"))
    waiting = text(client, job)
    import_file(job.pk)
    import_file(job.pk)  # delivered twice
    done = text(client, job)

    assert 'hx-trigger="every 1s"' in waiting
    assert "every 1s" not in done
    assert "Done" in done
    assert "is neither true nor false" in done
    assert "<script>alert(1)" not in done
    assert Example.objects.count() == 3
    assert set(Vote.objects.values_list("user", "source")) == {(admin.pk, "import")}
    assert not Path(job.path).exists()
    assert AuditEvent.objects.filter(action="import.start", actor=admin).count() == 1


def test_dry_run_of_the_command_is_not_listed_as_an_import(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    job = uploaded(client, [{"prompt": "alone"}])
    ImportJob.objects.update(dry_run=True)
    client.post(page(job, "import-start"))
    import_file(job.pk)

    shown = text(client, job)
    listed = client.get(reverse("imports", args=["bot"])).content.decode()

    assert "dry run: the numbers show what would be imported, nothing is" in shown
    assert "have a version answer them" not in shown
    assert "dry run" in listed
    assert AuditEvent.objects.get(action="import.start").reason == "dry run"
    assert not project.prompts.exists()


def test_progress_polling_ends_with_the_import(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    job = uploaded(client)
    client.post(page(job, "import-start"))
    ImportJob.objects.update(status="running", heartbeat_at=timezone.now(), share=0.25, rows=1234)
    poll = {"headers": {"HX-Request": "true"}}

    running = client.get(page(job), **poll)
    ImportJob.objects.update(status="done", finished_at=timezone.now())
    ended = client.get(page(job), **poll)

    assert running.status_code == 200
    assert b"25 % of the file" in running.content
    assert b"1,234" in running.content
    assert b"<html" not in running.content
    assert ended.status_code == 286


def test_refused_rows_are_downloaded_as_csv_without_formulas(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    job = uploaded(client)
    ImportRefusal.objects.create(job=job, number=7, reason="bad", excerpt="=cmd()\nmore")

    answer = client.get(page(job, "import-refusals"))

    body = b"".join(answer.streaming_content).decode()
    assert list(csv.reader(io.StringIO(body, newline=""))) == [
        ["row", "reason", "content"],
        ["7", "bad", "'=cmd()\nmore"],
    ]
    assert "attachment" in answer["Content-Disposition"]


def test_discarded_file_that_was_not_started_is_no_longer_listed(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    job = uploaded(client)

    listed = client.post(page(job, "import-stop"), follow=True)

    assert not ImportJob.objects.exists()
    assert not Path(job.path).exists()
    assert "The file was discarded. Nothing was imported." in listed.content.decode()
    assert f">{job.name}</a>" not in listed.content.decode()
    assert client.post(page(job, "import-start")).status_code == 404
    assert AuditEvent.objects.get(action="import.discard").target == job.name


def test_import_that_was_stopped_while_waiting_stays_listed(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    job = uploaded(client)
    client.post(page(job, "import-start"))

    client.post(page(job, "import-stop"))

    assert ImportJob.objects.get().status == "cancelled"
    assert not Path(job.path).exists()
    assert "Stopped" in text(client, job)


def test_stopped_import_writes_nothing_more(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    job = uploaded(client)
    client.post(page(job, "import-start"))

    client.post(page(job, "import-stop"))
    import_file(job.pk)

    assert not Vote.objects.exists()


def test_second_start_waits_for_the_first(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    first, second = uploaded(client), uploaded(client)

    client.post(page(first, "import-start"))
    answer = client.post(page(second, "import-start"))

    assert answer.status_code == 400
    assert b"Another import is running" in answer.content


def test_useless_file_shows_an_error_beside_the_form(
    project: Project, admin: User, as_user: As, settings: Any
) -> None:
    answer = send(as_user(admin), SimpleUploadedFile("x.png", b"\x89PNG\r\n\x1a\n"))

    assert answer.status_code == 400
    assert b"not a CSV header" in answer.content
    assert not ImportJob.objects.exists()
    assert send(as_user(admin), SimpleUploadedFile("x", b"")).status_code == 400


def test_file_name_is_not_part_of_the_path(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    send(client, jsonl(ROWS, name="../../<b>evil</b>.jsonl"))
    job = ImportJob.objects.get()

    assert "evil" not in job.path
    assert "<b>evil" not in text(client, job)


def test_unknown_field_beside_the_file_is_refused(
    project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).post(
        reverse("imports", args=["bot"]), {"file": jsonl(ROWS), "path": "/etc/passwd"}
    )

    assert answer.status_code == 400
    assert not ImportJob.objects.exists()


def test_unused_upload_is_deleted_after_a_day(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    old = uploaded(client)
    ImportJob.objects.update(created_at=timezone.now() - timedelta(hours=25))

    uploaded(client)

    assert not ImportJob.objects.filter(pk=old.pk).exists()
    assert not Path(old.path).exists()


@pytest.mark.parametrize("name", ["import-job", "import-refusals", "import-start", "import-stop"])
def test_import_of_another_project_is_404(
    name: str, project: Project, admin: User, outsider: User, annotator: User, as_user: As
) -> None:
    job = uploaded(as_user(admin))
    method = "post" if name in ("import-start", "import-stop") else "get"
    foreign = reverse(name, args=["other", job.pk])

    assert getattr(as_user(outsider), method)(page(job, name)).status_code == 404
    assert getattr(as_user(outsider), method)(foreign).status_code == 404
    assert getattr(as_user(annotator), method)(page(job, name)).status_code == 403
    assert getattr(Client(), method)(page(job, name)).status_code == 302
    assert ImportJob.objects.get().status == "preview"


def test_import_pages_are_for_admins(
    project: Project, outsider: User, annotator: User, client: Client, as_user: As
) -> None:
    address = reverse("imports", args=["bot"])

    for method in ("get", "post"):
        assert getattr(as_user(outsider), method)(address).status_code == 404
        assert getattr(as_user(annotator), method)(address).status_code == 403
        assert getattr(client, method)(address).status_code == 302


def test_upload_without_csrf_token_is_refused(project: Project, admin: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin)

    assert send(client, jsonl(ROWS)).status_code == 403
    assert not ImportJob.objects.exists()


def test_page_queries_do_not_grow_with_the_lists(
    project: Project, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    client = as_user(admin)
    for _ in range(5):
        job = uploaded(client)
    client.post(page(job, "import-start"))
    import_file(job.pk)

    with django_assert_max_num_queries(5):
        assert client.get(reverse("imports", args=["bot"])).content.count(b"votes.jsonl") == 5
    with django_assert_max_num_queries(6):
        client.get(page(job))
