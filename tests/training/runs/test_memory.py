"""The memory that a run needs, on the Train page, from what a worker has measured."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.figures.services import figures_count
from feedback_app.feedback.models import Example, Figures, Project
from feedback_app.training import tasks
from feedback_app.training.runs.config import RunConfig, form_values
from feedback_app.training.runs.planning import measuring
from feedback_app.training.runs.planning.measuring import longest_examples, memory_measure
from feedback_app.training.runs.planning.memory import NAME, RunMemory, memory_of
from feedback_app.training.snapshots.files import examples_write
from tests.tiny import make_tiny_model
from trainer.planning.plan import plan_model

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]
GB = 2**30
CONFIG = RunConfig()
CHEAPER = {"quantisation": None, "gradient_checkpointing": False}


def found(**changes: Any) -> dict[str, Any]:
    """Return what a worker with a CPU measures: a token costs 1 MB at rank 16, a pair 1 kB."""
    way = {"dtype": "auto", **CHEAPER, "fixed": GB, "rank": 0.0, "token": 2**19, "pair": 1024.0}
    way |= {"token_rank": 2**15}
    packs = {"token_budget": 4096, "held_tokens": 8192, "gradient_checkpointing": False}
    return {
        "device": "cpu",
        "devices": 1,
        "total": 16 * GB,
        "free": None,
        "lengths": [1000, 800, 100],
        "waits": ["kto"],
        "packs": [packs],
        "ways": [way, {**way, "quantisation": "4bit", "fixed": GB // 4}],
        **changes,
    }


def needed(config: RunConfig = CONFIG, **changes: Any) -> RunMemory:
    memory = memory_of(found(**changes), config, examples=3)
    assert memory is not None
    return memory


def test_longest_examples_of_one_batch_decide() -> None:
    squares = 1000**2 + 800**2 + 100**2
    assert needed().needed == GB + 1900 * 2**20 + squares * 1024
    two = replace(CONFIG, batch_size=2)
    assert needed(two).needed == GB + 1800 * 2**20 + (squares - 100**2) * 1024
    short = replace(CONFIG, max_length=64)
    assert needed(short).needed == GB + 192 * 2**20 + 3 * 64**2 * 1024
    # of more examples than were measured each counts like the shortest of those
    more = memory_of(found(), replace(CONFIG, batch_size=5), examples=100)
    assert more is not None
    assert more.needed == needed().needed + 2 * (100 * 2**20 + 100**2 * 1024)


def test_packs_bound_what_waits() -> None:
    """A loss without z₀ computes one pack at a time, of one example at least."""
    sft = replace(CONFIG, loss="sft", beta=None)
    for config, tokens in ((CONFIG, 8192), (sft, 4096), (replace(CONFIG, lora_dropout=0.1), 4096)):
        memory = memory_of(found(lengths=[900] * 64), config, examples=64)
        assert memory is not None
        assert memory.needed == GB + tokens * (2**20 + 900 * 1024)
    tight = replace(CONFIG, token_budget=64, held_tokens=0)
    assert needed(tight, lengths=[1000, 1000, 1000]).needed == GB + 1000 * 2**20 + 10**6 * 1024


def test_settings_that_save_memory_count() -> None:
    assert needed(replace(CONFIG, quantisation="4bit")).needed == needed().needed - 3 * GB // 4
    assert needed(replace(CONFIG, lora_r=32)).needed == needed().needed + 1900 * 16 * 2**15
    # no worker could tell
    assert memory_of(found(), replace(CONFIG, dtype="float16"), examples=3) is None
    assert memory_of(found(lengths=[]), CONFIG, examples=3) is None
    assert memory_of({}, CONFIG, examples=3) is None


def test_packs_that_fit_the_free_memory_of_a_gpu_are_chosen() -> None:
    first = {"token_budget": 4096, "held_tokens": 8192, "gradient_checkpointing": False}
    packs = [first, first | {"token_budget": 1024, "held_tokens": 0}]
    many = {"lengths": [1000] * 3, "packs": packs}
    roomy = needed(**many, free=16 * GB)
    tight = needed(**many, free=4 * GB)
    assert (roomy.needed, roomy.fits) == (needed(lengths=[1000] * 3).needed, True)
    assert tight.needed < roomy.needed
    assert tight.fits
    assert not needed(**many, free=2 * GB).fits


def measured(project: Project, **changes: Any) -> Figures:
    value = {"base_model": project.base_model, "footprint": found(**changes)}
    row, _ = Figures.objects.update_or_create(
        project=project,
        name=NAME,
        defaults={"value": value, "status": "done", "counted_at": timezone.now()},
    )
    return row


def page(client: Client, project: Project, **settings: Any) -> str:
    values = form_values(replace(CONFIG, **settings))
    url = reverse("run-plan", args=[project.slug])
    answer = client.get(url, values, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_page_shows_memory_for_the_settings_of_the_form(
    voted_project: Project, admin: User, as_user: As
) -> None:
    measured(voted_project)
    client = as_user(admin)
    first = client.get(reverse("runs", args=[voted_project.slug])).content.decode()
    assert ">of 16 GB</small>" in first
    assert "memory-short" not in first
    large = page(client, voted_project, lora_r=256, max_length=4096)
    assert "memory-short" in large
    assert 'type="submit" disabled' not in large  # an estimate refuses nothing
    measured(voted_project, free=3 * GB)
    assert "16 GB (3.0 GB free): it may run out" in page(client, voted_project)


def test_page_has_memory_measured_once_there_are_examples(
    voted_project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    url = reverse("runs", args=[voted_project.slug])
    stored = Figures.objects.filter(name=NAME)
    Example.objects.update(split="test")
    client.get(url)
    assert not stored.exists()
    Example.objects.update(split="train")
    assert "after a worker that trains has estimated it" in client.get(url).content.decode()
    assert stored.get().status == "queued"

    row = measured(voted_project)
    client.get(url)
    assert stored.get().status == "done"
    stored.update(counted_at=timezone.now() - dt.timedelta(hours=2))
    assert "of 16 GB" in client.get(url).content.decode()
    assert stored.get().status == "queued"
    # of another base model nothing is known
    stored.update(value=row.value | {"base_model": "another"}, status="done")
    assert "has estimated it" in client.get(url).content.decode()
    assert stored.get().status == "queued"


def test_measurement_is_sent_to_a_worker_that_trains_once_in_a_while(
    voted_project: Project, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(tasks.measure_memory, "apply_async", lambda ids, **_: sent.extend(ids))
    row = Figures.objects.create(project=voted_project, name=NAME)
    for _ in range(3):
        tasks.dispatch()
    assert sent == [row.pk]
    assert settings.CELERY_TASK_ROUTES[tasks.measure_memory.name] == {"queue": "gpu"}  # type: ignore[attr-defined]


def test_longest_of_the_training_examples_are_measured(
    voted_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "LONGEST", 1)
    long = voted_project.examples.filter(split="train").order_by("completion")[5]
    long.completion.prompt.messages[0]["content"] *= 3
    long.completion.prompt.save(update_fields=["messages"])
    other = voted_project.examples.filter(split="test")[0]
    voted_project.completions.filter(pk=other.completion_id).update(text="far longer" * 50)
    assert list(longest_examples(voted_project)) == [long]


def test_failure_leaves_memory_unknown(voted_project: Project, settings: object) -> None:
    settings.TRAINER_LAUNCHER, settings.TRAINER_PROCESSES = "ray", 0  # type: ignore[attr-defined]
    row = Figures.objects.create(project=voted_project, name=NAME)
    assert figures_count(pk=row.pk, count=memory_measure)
    row.refresh_from_db()
    assert (row.status, row.value["footprint"]) == ("done", {})


@pytest.mark.slow
def test_figure_is_that_of_the_planner(
    voted_project: Project, tmp_path: Path, settings: object
) -> None:
    settings.MODELS_ROOT = tmp_path  # type: ignore[attr-defined]
    model = make_tiny_model(tmp_path / voted_project.base_model)
    measurement = memory_measure(voted_project)["footprint"]
    examples_write(voted_project, "train", tmp_path / "examples.jsonl")  # type: ignore[arg-type]
    count = voted_project.examples.filter(split="train").count()
    for settings_given in ({}, {"lora_r": 64, "batch_size": 4, "gradient_checkpointing": True}):
        config = replace(CONFIG, **settings_given)
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config.as_json()))
        planned = plan_model(str(model), tmp_path / "examples.jsonl", file)
        memory = memory_of(measurement, config, examples=count)
        assert memory is not None
        exact = planned["memory"]["total"]
        # prompts that begin alike share what they begin with; this batch is the longest one
        assert exact <= memory.needed + 1 <= 1.2 * exact
