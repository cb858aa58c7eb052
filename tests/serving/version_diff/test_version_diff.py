"""The version diff: requested once, resumable, and shown side by side."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Source, Split
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.serving.models import ChangeReport, FixedAnswer
from feedback_app.serving.releases.services import release_promote
from feedback_app.serving.version_diff import services
from feedback_app.serving.version_diff.page import rows_of
from feedback_app.serving.version_diff.services import (
    adapters_without_version_diff,
    prompts_fix,
    report_claim,
    report_execute,
    version_diff_request,
)
from feedback_app.training.models import Adapter
from feedback_app.web.errors import UserError
from feedback_app.web.word_diff import differences
from tests.served import MakeAdapter

served_tests = [pytest.mark.django_db, pytest.mark.slow]
As = Callable[[User], Client]


def prompts(
    project: Project, count: int, *, start: int = 0, split: Split = Split.VALIDATION
) -> None:
    """Create this many prompts."""
    for number in range(start, start + count):
        prompt = prompt_get_or_create(
            project=project,
            messages=[{"role": "user", "content": f"Question {number}?"}],
            source=Source.IMPORT,
        )
        prompt.split = split
        prompt.save()


@pytest.fixture
def asked(served: Project, make_adapter: MakeAdapter, admin: User) -> Adapter:
    """Version 2, whose gate compared it with version 1, and three validation prompts."""
    served.max_tokens = 8
    served.save()
    prompts(served, 3)
    release_promote(project=served, adapter=make_adapter(1), by=admin)
    adapter = make_adapter(2)
    adapter.project = served
    return adapter


def write(adapter: Adapter, by: User | None = None) -> ChangeReport:
    version_diff_request(adapter=adapter, by=by)
    claim = report_claim(adapter.pk)
    assert claim is not None
    assert report_claim(adapter.pk) is None  # a second delivery
    report_execute(claim)
    return ChangeReport.objects.select_related("adapter__project").get(pk=adapter.pk)


@pytest.mark.django_db
def test_fixed_prompts_are_of_validation_keep_positions_and_fill_up(project: Project) -> None:
    prompts(project, 3, start=100, split=Split.TRAIN)
    prompts(project, 3, start=200, split=Split.TEST)
    with pytest.raises(UserError, match="no validation prompt"):
        prompts_fix(project)
    prompts(project, 5)
    few = [(each.position, each.prompt_id) for each in prompts_fix(project)]
    assert [place for place, _ in few] == list(range(5))
    prompts(project, 30, start=5)
    many = prompts_fix(project)
    assert [(each.position, each.prompt_id) for each in many[:5]] == few
    assert len(many) == 20
    assert {each.prompt.split for each in many} == {"validation"}
    project.prompts.get(pk=many[7].prompt_id).delete()
    again = prompts_fix(project)
    assert [each.position for each in again] == list(range(20))
    assert [each.prompt_id for each in again[:7]] == [each.prompt_id for each in many[:7]]


class TestServed:
    pytestmark = served_tests

    def test_every_version_is_asked_once_and_shown_side_by_side(
        self,
        asked: Adapter,
        make_adapter: MakeAdapter,
        admin: User,
        viewer: User,
        as_user: As,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        report = write(asked)
        assert (report.status, report.done, report.total) == ("done", 9, 9)
        assert report.versions == ["bot@2", "bot@1", "base"]
        rows = rows_of(report)
        for row in rows:
            assert [column.version for column in row.columns] == report.versions
            for column in row.columns:
                assert column.answer is not None
                assert "".join(piece.text for piece in column.pieces) == column.answer.text
        # the next version requests only its own answers
        calls: list[str] = []
        real = services.client.Engine.answer

        def counted(self: Any, messages: Any, **options: Any) -> Any:
            calls.append(options["version"])
            assert options["sampling"].temperature == 0
            return real(self, messages, **options)

        monkeypatch.setattr(services.client.Engine, "answer", counted)
        third = make_adapter(3)
        third.project = asked.project
        assert write(third).done == 9
        assert calls == ["bot@3"] * 3

        target = reverse("changes", args=[asked.project.slug, asked.name])
        page = as_user(viewer).get(target).content.decode()
        assert page.count('class="side-by-side"') == 3
        assert "bot@1" in page
        assert "Generate answers" not in page
        assert as_user(viewer).get(target + "?sort=x").status_code == 400
        assert as_user(viewer).post(target + "new/").status_code == 403

    def test_changed_system_prompt_is_shown_and_answers_are_requested_again(
        self, asked: Adapter, admin: User, as_user: As
    ) -> None:
        before = write(asked)
        asked.project.system_prompt = "Answer in rhymes."
        asked.project.save()
        client = as_user(admin)
        target = reverse("changes", args=[asked.project.slug, asked.name])
        assert "has changed since" in client.get(target).content.decode()
        assert all(c.answer for row in rows_of(before) for c in row.columns)
        page = client.post(target + "new/", follow=True).content.decode()
        assert "Waiting for a worker" in page
        assert client.get(target + "progress/").status_code == 200
        client.post(target + "new/")  # a double click
        claim = report_claim(asked.pk)
        assert claim is not None
        report_execute(claim)
        assert FixedAnswer.objects.count() == 18
        done = client.get(target + "progress/")
        assert (done.status_code, done["HX-Refresh"]) == (286, "true")
        assert "has changed since" not in client.get(target).content.decode()

    def test_unreachable_engine_delays_and_a_broken_version_fails_the_diff(
        self, asked: Adapter, admin: User, settings: Settings
    ) -> None:
        engines = settings.ENGINES
        settings.ENGINES = {asked.project.base_model: "http://127.0.0.1:9"}
        report = write(asked)
        assert report.status == "queued"
        assert "does not answer" in report.error
        settings.ENGINES = engines
        Adapter.objects.filter(pk=asked.pk).update(path="adapters/nowhere")
        asked.refresh_from_db()
        claim = report_claim(asked.pk)
        assert claim is not None
        report_execute(claim)
        report.refresh_from_db()
        assert report.status == "failed"
        assert report.error

    def test_diff_of_a_gate_winner_is_requested_automatically_once(
        self, asked: Adapter, make_adapter: MakeAdapter
    ) -> None:
        make_adapter(3, gate_won=False)
        assert [adapter.name for adapter in adapters_without_version_diff()] == ["bot@2"]
        version_diff_request(adapter=asked, by=None)
        assert list(adapters_without_version_diff()) == []

    def test_winner_waits_for_the_first_validation_prompt_without_being_asked_for(
        self, asked: Adapter, served: Project
    ) -> None:
        served.prompts.update(split=Split.TRAIN)
        assert list(adapters_without_version_diff()) == []
        prompts(served, 1, start=90)
        assert list(adapters_without_version_diff()) == [asked]

    def test_version_of_another_project_is_404(
        self, asked: Adapter, outsider: User, as_user: As
    ) -> None:
        client = as_user(outsider)
        for slug in (asked.project.slug, "other"):
            target = reverse("changes", args=[slug, asked.name])
            for path in (target, target + "progress/"):
                assert client.get(path).status_code == 404
            assert client.post(target + "new/").status_code == 404


def test_differences_equal_values_made_by_hand() -> None:
    left, right, share = differences("Open the red door.", "Open the  big blue door.")
    assert [(p.text, p.marked) for p in left] == [
        ("Open the ", False),
        ("red ", True),
        ("door.", False),
    ]
    assert [(p.text, p.marked) for p in right] == [
        ("Open the  ", False),
        ("big blue ", True),
        ("door.", False),
    ]
    assert share == pytest.approx(3 / 9)
    assert differences("Same.", "Same.")[2] == 0
    assert differences("", "New.")[2] == 1


@given(st.text(max_size=80), st.text(max_size=80))
def test_differences_keep_every_character_and_mark_both_sides_or_none(old: str, new: str) -> None:
    left, right, share = differences(old, new)
    assert "".join(piece.text for piece in left) == old
    assert "".join(piece.text for piece in right) == new
    assert 0 <= share <= 1
    assert (share > 0) == any(piece.marked for piece in [*left, *right])
