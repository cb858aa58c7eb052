"""A corrected answer: the original is a down and the text an up, and both follow the vote."""

import re
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import (
    EDITED_VERSION,
    Completion,
    Correction,
    Example,
    Project,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.votes.corrections import LIMIT, TIMES, vote_cast_corrected
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.privacy.erasure import person_erase
from feedback_app.web.errors import UserError
from tests.conftest import MakeCompletions, hand_out

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]
BETTER = "The answer as it should be."


def correct(original: Completion, by: User, text: str = BETTER) -> None:
    vote_cast_corrected(
        completion=original, correction=text, verdict=Verdict.DOWN, by=by, source=Source.ANNOTATE
    )


def labels(project: Project) -> dict[str, bool]:
    rows = Example.objects.filter(project=project).select_related("completion")
    return {row.completion.text: row.desirable for row in rows}


@pytest.fixture
def original(make_completions: MakeCompletions) -> Completion:
    return make_completions(1)[0]


def test_desk_stores_both_examples(
    project: Project, original: Completion, annotator: User, as_user: AsUser
) -> None:
    hand_out(annotator, original)
    url = reverse("vote", args=[project.slug, original.pk])
    sent = as_user(annotator).post(url, {"verdict": "down", "correction": f"  {BETTER}\n"})
    assert sent.status_code == 302
    assert labels(project) == {original.text: False, BETTER: True}
    written = Completion.objects.get(version=EDITED_VERSION)
    assert (written.prompt, written.system_prompt) == (original.prompt, original.system_prompt)
    assert not written.queued
    assert Example.objects.get(completion=written).split == original.prompt.split
    assert Correction.objects.get().original == original


@pytest.mark.parametrize("text", ["", "  \n", "Answer number 0."])
def test_nothing_changed_is_no_correction(
    project: Project, original: Completion, annotator: User, text: str
) -> None:
    correct(original, annotator, text)
    assert labels(project) == {original.text: False}


def test_up_with_a_correction_is_refused_and_stores_nothing(
    project: Project, original: Completion, annotator: User, as_user: AsUser
) -> None:
    hand_out(annotator, original)
    url = reverse("vote", args=[project.slug, original.pk])
    client = as_user(annotator)
    refused = client.post(url, {"verdict": "up", "correction": BETTER})
    assert refused.status_code == 400
    assert "A correction goes with down" in refused.content.decode()
    assert client.post(url, {"verdict": "down", "correction": "x" * (LIMIT + 1)}).status_code == 400
    assert not Vote.objects.exists()


def test_answers_of_others_cannot_be_corrected(
    project: Project, original: Completion, annotator: User, as_user: AsUser
) -> None:
    url = reverse("vote", args=[project.slug, original.pk])
    sent = as_user(annotator).post(url, {"verdict": "down", "correction": BETTER})
    assert sent.status_code == 404
    assert not Correction.objects.exists()


def test_same_correction_twice_is_one(
    project: Project, original: Completion, annotator: User
) -> None:
    correct(original, annotator)
    correct(original, annotator)
    assert Completion.objects.filter(version=EDITED_VERSION).count() == 1


def test_new_correction_replaces_the_earlier_one(
    project: Project, original: Completion, annotator: User
) -> None:
    correct(original, annotator)
    correct(original, annotator, "Better still.")
    assert labels(project) == {original.text: False, "Better still.": True}


def test_answer_is_corrected_a_bounded_number_of_times(
    project: Project, original: Completion, annotator: User
) -> None:
    for number in range(TIMES):
        correct(original, annotator, f"Text {number}.")
    with pytest.raises(UserError, match="10 times"):
        correct(original, annotator, "One more.")
    assert labels(project) == {original.text: False, f"Text {TIMES - 1}.": True}


def test_markup_in_a_correction_is_shown_as_text(
    project: Project, admin: User, original: Completion, annotator: User, as_user: AsUser
) -> None:
    correct(original, annotator, "<script>alert(1)</script> <b hx-get='/'>x</b>")
    page = as_user(admin).get(reverse("examples", args=[project.slug])).content.decode()
    assert "<script>alert" not in page
    assert "<b hx-get" not in page
    assert "&lt;script&gt;" in page


def test_undo_takes_both_back(project: Project, original: Completion, annotator: User) -> None:
    correct(original, annotator)
    assert vote_undo(completion=original, by=annotator, source=Source.ANNOTATE)
    assert labels(project) == {}
    assert not Vote.objects.exists()
    correct(original, annotator)
    assert labels(project) == {original.text: False, BETTER: True}


def test_changing_to_up_withdraws_the_correction(
    project: Project, original: Completion, annotator: User
) -> None:
    correct(original, annotator)
    vote_cast(completion=original, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    assert labels(project) == {original.text: True}


def test_corrections_have_a_weight_of_their_own(
    project: Project, original: Completion, annotator: User
) -> None:
    Project.objects.update(edited_weight=40)
    correct(Completion.objects.get(), annotator)
    weights = dict(Example.objects.values_list("completion__version", "weight"))
    assert weights == {"base": 1.0, EDITED_VERSION: pytest.approx(0.4)}


def test_examples_page_marks_what_was_changed(
    project: Project, admin: User, original: Completion, annotator: User, as_user: AsUser
) -> None:
    correct(original, annotator, "Answer number one.")
    page = as_user(admin).get(reverse("examples", args=[project.slug])).content.decode()
    assert "Corrected answer" in page
    assert re.findall(r"<mark\s*>(.*?)</mark>", page) == ["0.", "one."]


def test_erased_person_leaves_no_text(
    project: Project, original: Completion, annotator: User
) -> None:
    correct(original, annotator)
    correct(original, annotator, "Withdrawn by the next.")
    correct(original, annotator, "Last.")
    person_erase(user=annotator, by=None)
    assert not Completion.objects.filter(version=EDITED_VERSION).exists()
    assert labels(project) == {}
