"""What the next snapshot contains: counted by a worker, shown on the Train page."""

import datetime as dt
import random
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.figures.services import figures_count, figures_due
from feedback_app.feedback.models import (
    Completion,
    Example,
    Figures,
    Project,
    Source,
    Split,
    Verdict,
    Vote,
)
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.training.snapshots.content import services
from feedback_app.training.snapshots.content.duplicates import near_duplicates, signature_of
from feedback_app.training.snapshots.content.services import NAME, content_count, content_read
from tests.conftest import prompts_make

As = Callable[[User], Client]
ENGLISH = "The order was shipped yesterday and will arrive on Monday, before noon if all goes well."
GERMAN = "Die Bestellung wurde gestern verschickt und kommt am Montag an, wenn alles gut geht."


def example(project: Project, question: str, answer: str, *, up: bool) -> Completion:
    [prompt] = prompts_make(project, [question])
    completion = completion_create(
        project=project,
        prompt=prompt,
        answer=Answer(answer, "base", "stop", None, None),
        source=Source.SAMPLED,
    )
    Vote.objects.create(
        project=project,
        completion=completion,
        user=User.objects.create_service(name="voter"),
        verdict=Verdict.UP if up else Verdict.DOWN,
        source=Source.ANNOTATE,
    )
    return completion


@pytest.fixture
def filled(project: Project) -> Project:
    """Seven training examples: two the same, two nearly, of which one is a down, and one German."""
    example(project, "Where is it?", ENGLISH, up=True)
    example(project, "Where is it?", ENGLISH, up=True)
    example(project, "When does it come?", f"{ENGLISH} " * 8 + "Yours.", up=True)
    example(project, "When does it come?", f"{ENGLISH} " * 8 + "Bye.", up=False)
    example(project, "Wo ist sie?", GERMAN, up=True)
    example(project, "Yes or no?", "Yes.", up=False)
    example(project, "<b>Why</b>?", "x" * 6_000, up=False)
    examples_refresh(project.completions.values_list("pk", flat=True))
    Example.objects.update(split=Split.TRAIN)
    return project


@pytest.mark.django_db
def test_content_is_counted(filled: Project) -> None:
    found = content_count(filled)

    assert (found["read"], found["ups"], found["downs"]) == (7, 4, 3)
    assert (found["exact"], found["near"], found["mixed"]) == (1, 1, 1)
    assert [count for count, *_ in found["groups"]] == [2, 2]
    assert dict(found["languages"])["de"] == pytest.approx(1 / 6)  # 'Yes.' is too short
    assert found["lengths"][0] == [3, 1]  # below 100 characters
    assert found["lengths"][-1] == [0, 1]
    assert not found["more"]


@pytest.mark.django_db
def test_page_waits_for_the_worker_and_then_shows_it(
    filled: Project, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("runs", args=["bot"])
    assert "A worker reads the training examples" in client.get(url).content.decode()

    [due] = figures_due(NAME)
    assert figures_count(pk=due.pk, count=content_count)

    text = client.get(url).content.decode()
    assert "7 training examples" in text
    assert "has ups and downs" in " ".join(text.split())
    assert "<b>Why" not in text
    assert "5,000 and more" in text


@pytest.mark.django_db
def test_content_is_read_again_after_a_while(filled: Project) -> None:
    content_read(filled)
    [due] = figures_due(NAME)
    figures_count(pk=due.pk, count=content_count)
    content_read(filled)
    assert not figures_due(NAME).exists()

    Figures.objects.filter(name=NAME).update(counted_at=timezone.now() - dt.timedelta(hours=1))
    content_read(filled)

    assert figures_due(NAME).count() == 1


@pytest.mark.django_db
def test_erased_answers_leave_the_list(filled: Project) -> None:
    content_read(filled)
    [due] = figures_due(NAME)
    figures_count(pk=due.pk, count=content_count)
    filled.completions.all().delete()

    found = content_read(filled)

    assert found is not None
    assert found.groups == []


@pytest.mark.django_db
def test_large_project_is_read_in_part(filled: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MOST", 3)

    found = content_count(filled)

    assert (found["read"], found["more"]) == (3, True)


@pytest.mark.django_db
def test_empty_project_has_content(project: Project, admin: User, as_user: As) -> None:
    assert content_count(project)["read"] == 0
    content_read(project)
    [due] = figures_due(NAME)
    figures_count(pk=due.pk, count=content_count)

    page = as_user(admin).get(reverse("runs", args=["bot"]))

    assert "There are no training examples yet" in page.content.decode()


def test_near_duplicates_are_found_and_others_are_not() -> None:
    rng = random.Random(5)
    words = [f"word{n}" for n in range(2_000)]
    texts = [" ".join(rng.choices(words, k=120)) for _ in range(300)]
    copies = []
    for text in texts[:20]:
        changed = text.split()
        changed[60] = "other"  # 3 of 118 sequences
        copies.append(" ".join(changed))

    found = near_duplicates([*texts, *copies])

    assert found == [[n, 300 + n] for n in range(20)]


def test_many_equal_texts_are_one_group() -> None:
    assert near_duplicates(["the same sentence again"] * 300) == [list(range(300))]


def test_estimate_of_what_texts_share_is_close() -> None:
    words = [f"w{n}" for n in range(400)]
    one, other = " ".join(words[:300]), " ".join(words[100:])
    shared = 198 / (298 + 298 - 198)

    assert signature_of(one).jaccard(signature_of(other)) == pytest.approx(shared, abs=0.2)


@pytest.mark.parametrize(
    "texts", [[], [""], ["", ""], ["日本語の文章です" * 20, "日本語の文章です" * 20]]
)
def test_short_and_unspaced_texts_are_compared(texts: list[str]) -> None:
    assert near_duplicates(texts) == ([[0, 1]] if len(texts) == 2 else [])
