"""Mapping a file's columns in the browser: the preview is updated after each choice."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from playwright.sync_api import expect

from feedback_app.accounts.models import User
from feedback_app.feedback.imports.uploads import import_upload
from feedback_app.feedback.models import ImportJob, Project
from tests.browser.conftest import NewPage

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

CSV = b"question,reply,mark\nQ1,A1,fine\nQ2,A2,poor\n"


def test_preview_and_import_follow_the_mapping(
    new_page: NewPage, project: Project, admin: User
) -> None:
    job = import_upload(project=project, by=admin, upload=SimpleUploadedFile("a.csv", CSV))
    page = new_page(admin)
    page.goto(reverse("import-job", args=[project.slug, job.pk]))
    preview = page.locator("#import-preview")
    expect(preview).to_contain_text("The answers have no label")

    page.get_by_label("Label", exact=True).select_option("mark")
    expect(preview).to_contain_text("None of the first rows would be imported")
    page.get_by_label("Labels that mean up").fill("fine")
    page.keyboard.press("Tab")
    expect(preview.get_by_text("Up", exact=True)).to_be_visible()
    expect(page.get_by_label("Labels that mean down")).to_be_focused()
    page.keyboard.type("poor")
    page.get_by_role("button", name="Import the whole file").click()

    expect(page.get_by_text("for a worker")).to_be_visible()
    job = ImportJob.objects.get()
    assert job.columns == {"prompt": "question", "completion": "reply", "label": "mark"}
    assert (job.labels_up, job.labels_down) == (["fine"], ["poor"])
