"""Several runs side by side."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.serving.models import FixedAnswer
from feedback_app.serving.version_diff.services import conditions_of, prompts_fix
from feedback_app.training.models import Adapter, Run
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.services import run_request
from feedback_app.training.side_by_side.selectors import runs_side_by_side

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


def made(project: Project, admin: User, config: RunConfig, *, minutes: int = 5) -> Run:
    """Make a run with these settings that has succeeded."""
    run = run_request(project=project, by=admin, config=config)
    end = timezone.now()
    run.status = Run.Status.SUCCEEDED
    run.started_at, run.finished_at = end - dt.timedelta(minutes=minutes), end
    run.facts = {"device": "cpu", "total_steps": 1_200}
    run.save()
    return run


@pytest.fixture
def runs(voted_project: Project, admin: User) -> list[Run]:
    return [
        made(voted_project, admin, RunConfig(learning_rate=1e-4)),
        made(voted_project, admin, RunConfig(loss="bco", use_rslora=True), minutes=7),
        made(voted_project, admin, RunConfig(kl_brake=None)),
    ]


@pytest.fixture
def page(voted_project: Project, runs: list[Run]) -> str:
    return reverse("runs-side-by-side", args=[voted_project.slug])


def test_settings_that_differ_are_apart_from_the_others(
    runs: list[Run], voted_project: Project
) -> None:
    found = runs_side_by_side(voted_project, [3, 1, 2])

    assert [run.number for run in found.runs] == [1, 2, 3]
    assert {line.label: line.values for line in found.different} == {
        "Loss": ["KTO", "BCO", "KTO"],
        "Learning rate": ["0.0001", "0.0002", "0.0002"],
        "Rank-stabilised scaling (rsLoRA)": ["no", "yes", "no"],
        "KL brake": ["0.5", "0.5", "off"],
    }
    equal = {line.label: line.values[0] for line in found.equal}
    assert equal["Batch"] == "16"
    assert equal["Start from"] == "base"
    assert equal["λ of ups"] == "by the rule"
    data = {line.label: line.values for line in found.data}
    assert data["Minutes"] == ["5", "7", "5"]
    assert data["Steps"] == ["1,200"] * 3


def test_measures_of_each_version_stand_by_their_rule(
    runs: list[Run], voted_project: Project
) -> None:
    adapter = Adapter.objects.create(
        project=voted_project,
        run=runs[0],
        name=voted_project.adapter_name(1),
        path="x",
        sha256="x",
        report={
            "candidates": {
                voted_project.adapter_name(1): {"finished": {"value": 0.75, "n": 40}},
                "base": {"finished": {"value": 0.5, "n": 40}},
            }
        },
        gate={"rules": [{"key": "finished", "label": "Finished", "outcome": "passed", "text": ""}]},
    )
    [line] = runs_side_by_side(voted_project, [1, 2]).measures
    assert line.label == "Finished"
    assert line.values[0].startswith("75 %")
    assert line.values[1] == "–"
    assert adapter.name == "bot@1"


def test_answers_of_the_versions_stand_side_by_side(
    runs: list[Run], voted_project: Project, page: str, admin: User, as_user: As
) -> None:
    names = [voted_project.adapter_name(number) for number in (1, 2, 3)]
    for run, name in zip(runs, names, strict=True):
        Adapter.objects.create(project=voted_project, run=run, name=name, path=name, sha256=name)
    voted_project.prompts.order_by("pk").update(split="validation")
    texts = {names[0]: "Open the <b>door</b>.", names[1]: "Close the <b>door</b>."}
    for fixed in prompts_fix(voted_project):
        for name, text in texts.items():
            FixedAnswer.objects.create(
                fixed_prompt=fixed,
                version=name,
                conditions=conditions_of(voted_project),
                text=text,
                finish_reason="stop",
            )

    client = as_user(admin)
    text = client.get(f"{page}?run=1&run=2&run=3").content.decode()

    answers = text.split('id="answers-title"')[1]
    assert answers.count('class="side-by-side"') == 20
    assert "<mark\n>Close" in answers and "<mark\n>Open" not in answers
    assert "&lt;b&gt;door" in answers
    assert f"{names[2]}</span> has not answered" in answers
    assert reverse("changes", args=["bot", names[2]]) in answers
    # under other settings the answers would be others
    Project.objects.update(system_prompt="Be long.")
    text = client.get(f"{page}?run=1&run=2").content.decode()
    assert "Close" not in text.split('id="answers-title"')[1]


def test_page_shows_the_chosen_runs(page: str, admin: User, as_user: As) -> None:
    text = as_user(admin).get(f"{page}?run=1&run=3").content.decode()
    assert "Settings that differ" in text
    assert "Run 1" in text
    assert "Run 3" in text
    assert "Run 2" not in text


def test_list_of_runs_offers_the_choice(
    page: str, voted_project: Project, admin: User, as_user: As
) -> None:
    text = as_user(admin).get(reverse("runs", args=[voted_project.slug])).content.decode()
    assert page in text
    assert 'aria-label="Choose run 3"' in text


@pytest.mark.parametrize(
    "query", ["", "?run=1", "?run=1&run=1", "?run=1&run=9", "?run=a&run=2", "?run=1&run=2&x=1"]
)
def test_other_choices_are_refused(query: str, page: str, admin: User, as_user: As) -> None:
    assert as_user(admin).get(page + query).status_code == 400


def test_page_needs_as_many_queries_for_more_runs(
    page: str, admin: User, as_user: As, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client = as_user(admin)
    with django_assert_max_num_queries(12):
        client.get(f"{page}?run=1&run=2&run=3")
