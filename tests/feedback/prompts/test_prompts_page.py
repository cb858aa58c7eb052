"""The page of prompts: adding, changing, retiring, finding."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import DjangoAssertNumQueries

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Completion, Project, Prompt, Sampling, Source
from feedback_app.feedback.prompts.completions import sampling_request
from feedback_app.feedback.prompts.editing import (
    MOST_PASTED,
    prompt_edit,
    prompt_restore,
    prompt_retire,
    prompts_paste,
    prompts_split,
)
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.serving.sampling.services import missing
from feedback_app.training.gate.evaluation import prompts_available
from feedback_app.web.errors import UserError
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


@pytest.fixture
def page(project: Project) -> str:
    return reverse("prompts", args=[project.slug])


def prompt_of(project: Project, text: str, *, source: Source = Source.IMPORT) -> Prompt:
    return prompt_get_or_create(
        project=project, messages=[{"role": "user", "content": text}], source=source
    )


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("One?\n\n  Two?  \nOne?\n", ["One?", "Two?"]),
        ("First\nof two lines\n---\nSecond\n---\n", ["First\nof two lines", "Second"]),
        ("\n \n", []),
    ],
)
def test_text_is_split_by_lines_or_by_hyphens(text: str, prompts: list[str]) -> None:
    assert prompts_split(text) == prompts


def test_pasted_prompts_are_added_once_with_their_topic(
    project: Project, admin: User, as_user: As, page: str
) -> None:
    client = as_user(admin)
    assert "No prompts yet" in client.get(page).content.decode()

    answer = client.post(page, {"text": "Why?\nHow?", "topic": "questions"}, follow=True)
    assert "2 added." in answer.content.decode()
    answer = client.post(page, {"text": "How?\nWhen?"}, follow=True)
    assert "1 added. 1 were there already." in answer.content.decode()

    found = {prompt.title: prompt.topic for prompt in project.prompts.all()}
    assert found == {"Why?": "questions", "How?": "questions", "When?": ""}
    assert set(project.prompts.values_list("source", flat=True)) == {Source.IMPORT}
    assert AuditEvent.objects.filter(action="prompts.add").count() == 2


def test_pasted_prompt_of_the_demo_is_asked_from_now_on(project: Project, admin: User) -> None:
    known = prompt_of(project, "Why?", source=Source.DEMO)
    assert not project.prompts.asked().exists()
    prompts_paste(project=project, text="Why?", topic="", by=admin)
    assert list(project.prompts.asked()) == [known]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "This field is required"),
        ("\n".join(f"Question {n}?" for n in range(MOST_PASTED + 1)), "At most 500 prompts"),
        ("x" * 20_001, "at most 20,000 characters"),
    ],
)
def test_refused_text_is_named_and_kept(
    text: str, message: str, admin: User, as_user: As, page: str
) -> None:
    answer = as_user(admin).post(page, {"text": text, "topic": "kept topic"})
    assert answer.status_code == 400
    assert message in answer.content.decode()
    assert "kept topic" in answer.content.decode()
    assert not Prompt.objects.exists()


def test_topic_is_changed_in_place_with_that_of_the_answers(
    project: Project, admin: User, make_completions: MakeCompletions, as_user: As
) -> None:
    [completion] = make_completions()
    prompt = completion.prompt
    url = reverse("prompt", args=[project.slug, prompt.pk])
    assert prompt.title in as_user(admin).get(url).content.decode()

    as_user(admin).post(url, {"text": prompt.title, "topic": "numbers"})

    prompt.refresh_from_db()
    completion.refresh_from_db()
    assert (prompt.topic, completion.topic, prompt.retired_at) == ("numbers", "numbers", None)
    assert project.prompts.count() == 1


def test_another_text_is_another_prompt_and_the_old_one_is_retired(
    project: Project, admin: User, make_completions: MakeCompletions
) -> None:
    [completion] = make_completions()
    old = completion.prompt

    new = prompt_edit(prompt=old, text="A better question?", topic="", by=admin)

    old.refresh_from_db()
    assert new.pk != old.pk
    assert new.title == "A better question?"
    assert old.retired_at is not None
    assert Completion.objects.get().prompt == old
    with pytest.raises(UserError, match="already"):
        prompt_edit(prompt=new, text=old.title, topic="", by=admin)
    # as from a second tab that still shows it
    with pytest.raises(UserError, match="is retired"):
        prompt_edit(prompt=old, text="Another question?", topic="", by=admin)
    assert Prompt.objects.count() == 2


def test_edit_keeps_earlier_messages(project: Project, admin: User) -> None:
    before = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
    ]
    prompt = prompt_get_or_create(
        project=project,
        messages=[*before, {"role": "user", "content": "And?"}],  # type: ignore[list-item]
        source=Source.IMPORT,
    )
    new = prompt_edit(prompt=prompt, text="And then?", topic="", by=admin)
    assert new.messages == [*before, {"role": "user", "content": "And then?"}]


def test_retired_prompt_is_not_asked_until_it_is_restored(
    project: Project, admin: User, as_user: As, page: str
) -> None:
    prompts_paste(
        project=project, text="\n".join(f"Question {n}?" for n in range(20)), topic="", by=admin
    )
    testing = [one for one in project.prompts.all() if one.split == "test"]
    retired, available = testing[0], prompts_available(project)
    client = as_user(admin)

    client.post(reverse("prompt-retire", args=[project.slug, retired.pk]))

    sampling = sampling_request(project=project, answers_per_prompt=1)
    assert sampling.total == 19
    assert retired.pk not in {prompt.pk for prompt, _ in missing(sampling)}
    assert prompts_available(project) == available - 1
    assert retired.title not in client.get(page).content.decode()
    assert retired.title in client.get(f"{page}?show=retired").content.decode()

    client.post(reverse("prompt-restore", args=[project.slug, retired.pk]))
    assert prompts_available(project) == available
    assert not prompt_restore(prompt=retired, by=admin)
    assert prompt_retire(prompt=retired, by=admin)
    assert not prompt_retire(prompt=retired, by=admin)


def test_sampling_counts_only_prompts_that_it_asks(project: Project) -> None:
    prompt_of(project, "Of a visitor?", source=Source.DEMO)
    prompt_of(project, "Ours?")
    sampling = sampling_request(project=project, answers_per_prompt=3)
    assert sampling.total == len(missing(sampling)) == 3


def test_prompts_are_found_by_text_topic_and_source(
    project: Project, admin: User, as_user: As, page: str
) -> None:
    prompts_paste(
        project=project, text="Wie heißt du?\nBread, please.", topic="small talk", by=admin
    )
    prompts_paste(project=project, text="How do I bake BREAD?", topic="food", by=admin)
    prompt_of(project, "Where is bread sold?", source=Source.DEMO)
    client = as_user(admin)

    def titles(query: str) -> set[str]:
        return {prompt.title for prompt in client.get(f"{page}?{query}").context["page"]}

    assert titles("text=bread") == {
        "Bread, please.",
        "How do I bake BREAD?",
        "Where is bread sold?",
    }
    assert titles("text=HEISST") == {"Wie heißt du?"}
    assert titles("text=bread&topic=food") == {"How do I bake BREAD?"}
    assert titles("source=demo") == {"Where is bread sold?"}
    assert titles("text=nothing") == set()
    assert client.get(f"{page}?source=other").status_code == 400


def test_page_needs_as_many_queries_for_more_prompts(
    project: Project,
    admin: User,
    as_user: As,
    page: str,
    make_completions: MakeCompletions,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    make_completions(60)
    client = as_user(admin)
    with django_assert_max_num_queries(16):
        assert len(client.get(page).context["page"]) == 25


def test_sampling_from_the_page_leads_back_to_it(
    project: Project, admin: User, as_user: As, page: str
) -> None:
    prompt_of(project, "Ours?")
    client = as_user(admin)
    new = reverse("sampling-new", args=[project.slug])

    answer = client.post(
        new, {"answers_per_prompt": 1, "version": "base", "back": "prompts"}, follow=True
    )
    assert answer.redirect_chain[-1][0] == page
    assert "Cancel sampling" in answer.content.decode()
    sampling = Sampling.objects.get()
    cancel = reverse("sampling-cancel", args=[project.slug, sampling.pk])
    assert client.post(cancel, {"back": "prompts"})["Location"] == page
    assert client.post(new, {"answers_per_prompt": 1})["Location"] == reverse(
        "project-settings", args=[project.slug]
    )


def test_version_that_the_project_does_not_have_is_refused(
    project: Project, admin: User, as_user: As
) -> None:
    new = reverse("sampling-new", args=[project.slug])
    as_user(admin).post(new, {"answers_per_prompt": 1, "version": "bot@99"})
    assert not Sampling.objects.exists()


def test_prompt_of_another_project_is_not_found(
    project: Project, outsider: User, admin: User, as_user: As
) -> None:
    other = outsider.memberships.get().project
    foreign = prompt_of(other, "Theirs?")
    for name in ("prompt", "prompt-retire", "prompt-restore"):
        url = reverse(name, args=[project.slug, foreign.pk])
        assert as_user(admin).post(url, {"text": "x"}).status_code == 404
    foreign.refresh_from_db()
    assert foreign.retired_at is None
