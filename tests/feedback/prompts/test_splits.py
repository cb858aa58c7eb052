"""A prompt's split follows from a secret key of its project, so that nobody can choose it."""

import secrets
from importlib import import_module

import pytest
from django.apps import apps
from django.db import IntegrityError
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Prompt, Source, Split, projects
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.services import (
    Message,
    content_hash,
    prompt_get_or_create,
    split_of,
)

DIGESTS = [content_hash([{"role": "user", "content": f"Question {n}?"}]) for n in range(2_000)]


def keyed(key: str, *, validation: int = 10, test: int = 20) -> list[Split]:
    project = Project(split_key=key, validation_percent=validation, test_percent=test)
    return [split_of(digest, project=project) for digest in DIGESTS]


def test_splits_are_near_their_shares_and_the_same_every_time() -> None:
    splits = keyed("a" * 64)

    assert 0.17 < splits.count(Split.TEST) / len(splits) < 0.23
    assert 0.08 < splits.count(Split.VALIDATION) / len(splits) < 0.12
    assert splits == keyed("a" * 64)


def test_larger_validation_share_takes_training_prompts_only() -> None:
    before, after = keyed("a" * 64), keyed("a" * 64, validation=30)

    moved = {change for change in zip(before, after, strict=True) if change[0] != change[1]}
    assert moved == {(Split.TRAIN, Split.VALIDATION)}
    assert 0.27 < after.count(Split.VALIDATION) / len(after) < 0.33


def test_split_cannot_be_computed_without_the_key() -> None:
    unkeyed = [int(digest[:8], 16) % 100 < 20 for digest in DIGESTS]
    for other in (unkeyed, [split == Split.TEST for split in keyed("b" * 64)]):
        both = sum(
            guess and split == Split.TEST
            for guess, split in zip(other, keyed("a" * 64), strict=True)
        )
        # by chance a fifth of a fifth
        assert both / len(DIGESTS) < 0.06


@pytest.mark.django_db
@pytest.mark.parametrize(
    "shares", [{"validation_percent": 4}, {"validation_percent": 31}, {"test_percent": 51}]
)
def test_share_outside_its_bounds_is_refused_by_the_database(
    project: Project, shares: dict[str, int]
) -> None:
    with pytest.raises(IntegrityError):
        Project.objects.update(**shares)


@pytest.mark.django_db
def test_every_project_has_a_key_of_its_own(admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "token_hex", secrets.token_hex)
    keys = {
        project_create(slug=f"p{n}", name="P", base_model="m", owner=admin).split_key
        for n in range(3)
    }

    assert len(keys) == 3
    assert all(len(key) == 64 for key in keys)


@pytest.mark.django_db
def test_prompt_keeps_its_split_when_the_key_or_the_share_changes(project: Project) -> None:
    question: list[Message] = [{"role": "user", "content": "Why?"}]
    prompt = prompt_get_or_create(project=project, messages=question, source=Source.IMPORT)
    for split in Split:
        Prompt.objects.update(split=split)
        project.split_key, project.test_percent = "c" * 64, 50
        again = prompt_get_or_create(project=project, messages=question, source=Source.DEMO)
        assert (again.pk, again.split) == (prompt.pk, split)


@pytest.mark.django_db
def test_migration_gives_each_project_a_key_and_leaves_prompts_alone(
    project: Project, outsider: User
) -> None:
    migration = import_module("feedback_app.feedback.migrations.0023_project_split_key")
    question: list[Message] = [{"role": "user", "content": "Why?"}]
    prompt = prompt_get_or_create(project=project, messages=question, source=Source.IMPORT)
    Project.objects.update(split_key="")

    migration.fill(apps, None)

    keys = set(Project.objects.values_list("split_key", flat=True))
    assert len(keys) == 2
    assert all(len(key) == 64 for key in keys)
    assert Prompt.objects.get().split == prompt.split


@pytest.mark.django_db
def test_key_is_on_no_page_of_the_project(project: Project, admin: User) -> None:
    client = Client()
    client.force_login(admin)

    for name in ("project-settings", "rules", "examples", "runs", "quality"):
        page = client.get(reverse(name, args=["bot"])).content.decode()
        assert project.split_key not in page
