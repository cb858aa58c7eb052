"""Curves in a real browser: those of several runs over each other."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.models import Run, RunMetric
from feedback_app.training.runs.services import run_request
from tests.browser.conftest import NewPage
from tests.training.runs.test_pages import metric

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_curves_of_two_runs_are_drawn_over_each_other(
    new_page: NewPage, voted_project: Project, admin: User
) -> None:
    for number, (steps, loss) in enumerate([(8, 0.5), (4, 0.25)], start=1):
        run = run_request(project=voted_project, by=admin)
        RunMetric.objects.bulk_create(metric(run, step, loss=loss) for step in range(1, steps + 1))
        Run.objects.filter(number=number).update(status=Run.Status.SUCCEEDED)
    page = new_page(admin)

    page.goto(reverse("runs-side-by-side", args=["bot"]) + "?run=1&run=2")

    expect(page.locator("#no-curves")).to_be_hidden()
    loss_figure = page.locator("[data-chart=loss]")
    expect(loss_figure.locator("canvas")).to_have_count(1)
    # the values at a step that both runs have, and at one that the shorter run does not have
    plot = loss_figure.locator(".u-over")
    box = plot.bounding_box()
    assert box
    legend = loss_figure.locator(".legend")
    for share, run_1, run_2 in ((0.02, "0.50", "0.25"), (0.98, "0.50", "–")):
        plot.hover(position={"x": share * box["width"], "y": box["height"] / 2})
        expect(legend).to_contain_text(f"Run 1 {run_1}")
        expect(legend).to_contain_text(f"Run 2 {run_2}")
