"""The settings of a run: in the form, the command, the plan and the trainer's configuration."""

import json
import re
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Example, Project
from feedback_app.training.forgetting.erased_votes import erased_votes
from feedback_app.training.models import Adapter, Erasure, Run
from feedback_app.training.runs.config import (
    RUN_FIELDS,
    RunConfig,
    chat_settings,
    form_values,
    set_values,
    start_version,
    with_labels,
)
from feedback_app.training.runs.execution.inputs import prepare
from feedback_app.training.runs.forms import RunForm
from feedback_app.training.runs.planning.plan import run_plan_shown
from feedback_app.training.runs.presets import BY_KEY, PRESETS, parameters_of, preset_config
from feedback_app.training.runs.services import run_request
from feedback_app.training.runs.settings import LIVE, LOSSES, SETTINGS, UNUSED
from feedback_app.web.errors import UserError
from trainer.config import TrainConfig
from trainer.losses import LOSSES as TRAINER_LOSSES
from trainer.losses import ExampleLoss

ROOT = Path(__file__).resolve().parents[3]
#: Other than the defaults, each of them.
OTHER = RunConfig(
    loss="bco",
    beta=0.2,
    lambda_d=2.0,
    lambda_u=1.5,
    sft_weight=0.25,
    learning_rate=5e-6,
    batch_size=4,
    epochs=3,
    lr_schedule="cosine",
    warmup_ratio=0.2,
    weight_decay=0.01,
    start_from="live",
    lora_r=8,
    lora_alpha=16,
    lora_dropout=0.1,
    use_rslora=True,
    target_modules="attention",
    kl_brake=None,
    patience=None,
    max_length=512,
    dtype="float32",
    quantisation="4bit",
    gradient_checkpointing=False,
    token_budget=512,
    held_tokens=0,
    seed=9,
    deterministic=True,
)


def as_client(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def trainer_config(config: RunConfig) -> TrainConfig:
    return TrainConfig.from_dict(
        {"base_model": "?", "adapter_name": "bot@1", **config.as_json(start_adapter=None)}
    )


# -- one list of settings


def test_settings_defaults_and_losses_are_those_of_the_trainer() -> None:
    assert {setting.name for setting in SETTINGS} == set(RUN_FIELDS)
    assert trainer_config(RunConfig()) == TrainConfig("?", "bot@1")
    assert {key for key, _ in LOSSES} == set(TRAINER_LOSSES)
    for key, loss in TRAINER_LOSSES.items():
        config = RunConfig(
            loss=key,
            beta=0.1 if loss.reference else None,
            lambda_d=2.0 if isinstance(loss, ExampleLoss) else None,
        )
        assert trainer_config(config).loss == key


def test_every_setting_has_label_help_and_bounds_that_the_trainer_accepts() -> None:
    for setting in SETTINGS:
        assert setting.label
        assert setting.help.endswith(".")
        for bound in setting.bounds or ():
            trainer_config(set_values(RunConfig(), {setting.name: bound}))
    for name in ("lr_schedule", "dtype", "loss", "target_modules", "lora_init"):
        (setting,) = [one for one in SETTINGS if one.name == name]
        for value, _ in setting.choices:
            trainer_config(set_values(RunConfig(), {name: value}))


@pytest.mark.parametrize(
    "config",
    [RunConfig(), OTHER, RunConfig(loss="sft", beta=None), RunConfig(lora_init="pissa")],
)
def test_form_gives_back_what_it_is_filled_with(config: RunConfig) -> None:
    # PiSSA starts from no version, and from no packed base
    assert {one.name for one in fields(RunConfig) if getattr(OTHER, one.name) == one.default} == {
        "lora_init"
    }
    form = RunForm(form_values(config))
    assert form.is_valid(), form.errors
    assert form.config() == config
    assert RunConfig.stored(config.as_json(start_adapter="a/b@1" if config is OTHER else None)) == (
        config
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lora_init": "pissa", "quantisation": "4bit"}, "Quantisation: PiSSA takes a part out"),
        ({"lora_init": "pissa", "start_from": "live"}, "Start from: PiSSA starts from the base"),
        ({"lora_init": "pissa", "lora_r": "129"}, "LoRA rank: PiSSA saves an adapter of twice"),
        ({"target_modules": "head"}, "Adapted layers: Select a valid choice."),
        ({"loss": "ppo"}, "Loss: Select a valid choice."),
        ({"patience": "0"}, "Early stopping: Choose 1 to 100."),
        ({"learning_rate": ""}, "Learning rate: This field is required."),
    ],
)
def test_form_names_the_field_and_keeps_what_was_typed(change: dict[str, str], said: str) -> None:
    form = RunForm(form_values(RunConfig(seed=77)) | change)
    assert not form.is_valid()
    assert any(problem.startswith(said) for problem in form.problems()), form.problems()
    assert form["seed"].value() == "77"
    with pytest.raises(UserError):
        RunConfig(loss="sft", beta=0.3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss": "sft"}, "SFT on the ups has no β: its value is not used."),
        ({"loss": "sft", "beta": "", "lambda_u": "2"}, "SFT on the ups has no λ of downs: its"),
        (
            {"loss": "sft", "beta": "x", "sft_weight": "0.5"},
            "SFT on the ups has no β and Weight of SFT on the ups: their values are not used.",
        ),
        ({"loss": "dpo", "lambda_d": "99", "sft_weight": "0.5"}, "DPO has no λ of ups: its value"),
        ({"loss": "sft", "beta": ""}, ""),
        ({"loss": "kto", "lambda_d": "2"}, ""),
    ],
)
def test_form_ignores_settings_that_the_loss_does_not_have(
    change: dict[str, str], said: str
) -> None:
    form = RunForm(form_values(RunConfig()) | change)
    assert form.is_valid(), form.errors
    assert form.ignored().startswith(said)
    assert bool(form.ignored()) == bool(said)
    config = form.config()
    for name in UNUSED.get(config.loss, ()):
        assert not getattr(config, name)
    if config.loss == "dpo":
        assert config.sft_weight == 0.5


def test_form_hides_settings_that_the_loss_does_not_have() -> None:
    """The style sheet names them, so that they are hidden without JavaScript too."""
    css = (ROOT / "static" / "css" / "train.css").read_text()
    rules = re.findall(r'option\[value="(\w+)"\]:checked\) \.field:has\(> :is\(([^)]*)\)', css)
    hidden = {
        loss: tuple(name.strip().removeprefix("#id_") for name in names.split(","))
        for loss, names in rules
    }
    assert hidden == UNUSED


@pytest.mark.django_db
def test_plan_says_which_values_are_not_used(voted_project: Project, admin: User) -> None:
    client = as_client(admin)
    values = form_values(RunConfig(batch_size=8)) | {"loss": "sft"}
    plan = client.get(reverse("run-plan", args=[voted_project.slug]), values).content.decode()
    assert "SFT on the ups has no β: its value is not used." in plan
    client.post(reverse("run-request", args=[voted_project.slug]), values)
    assert "beta" not in voted_project.runs.get().config


def test_empty_beta_is_the_default_where_the_loss_has_one() -> None:
    kto, sft = (
        RunForm(form_values(RunConfig()) | {"beta": "", "loss": it}) for it in ("kto", "sft")
    )
    assert kto.is_valid()
    assert sft.is_valid()
    assert kto.config().beta == 0.5
    assert sft.config().beta is None
    assert "beta" not in sft.config().as_json()


def test_messages_of_the_trainer_keep_ordinary_words() -> None:
    assert with_labels("loss is NaN: lower learning_rate") == "loss is NaN: lower Learning rate"


# -- presets


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
@pytest.mark.parametrize("model", ["SmolLM2-135M-Instruct", "Qwen/Qwen2.5-1.5B", "Llama-3-70B"])
def test_preset_is_a_valid_configuration_for_every_size(preset: Any, model: str) -> None:
    form = RunForm(form_values(preset_config(preset, model)))
    assert form.is_valid(), form.errors
    trainer_config(form.config())


def test_default_preset_follows_the_size_of_the_model() -> None:
    found = [
        preset_config(BY_KEY["default"], model)
        for model in ("SmolLM2-135M-Instruct", "Qwen2.5-1.5B-Instruct", "Llama-3.1-8B", "mine")
    ]
    assert [config.learning_rate for config in found] == [2e-4, 5e-5, 5e-6, 2e-4]
    assert [config.beta for config in found] == [0.5, 0.1, 0.1, 0.5]
    gentle, strong = (preset_config(BY_KEY[key], "x-8B") for key in ("gentle", "strong"))
    assert (gentle.learning_rate, strong.learning_rate) == (2.5e-6, 1e-5)
    assert preset_config(BY_KEY["low-memory"], "x").gradient_checkpointing is True


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6),
        ("Qwen/Qwen2.5-0.5B", 0.5e9),
        ("meta-llama/Llama-3.1-70b-instruct", 70e9),
        ("org-7B/model", None),
        ("tiny", None),
    ],
)
def test_parameters_are_read_from_the_name(name: str, count: float | None) -> None:
    assert parameters_of(name) == count


# -- the page


@pytest.mark.django_db
def test_page_shows_settings_in_groups_and_presets_fill_them_in(
    voted_project: Project, admin: User
) -> None:
    client, url = as_client(admin), reverse("runs", args=[voted_project.slug])
    page = client.get(url)
    html = page.content.decode()
    for setting in SETTINGS:
        assert html.count(f'name="{setting.name}"') == 1, setting.name
    assert [group.title for group in page.context["form"].groups() if group.collapsed] == [
        "Memory and precision"
    ]
    filled = client.get(url, {"preset": "low-memory"})
    assert filled.context["form"]["token_budget"].value() == 1024
    assert "Advanced settings: Low memory" in filled.content.decode()
    assert client.get(url, {"preset": "huge"}).status_code == 400


@pytest.mark.django_db
def test_refused_form_opens_the_group_and_keeps_the_rest(
    voted_project: Project, admin: User
) -> None:
    form = form_values(RunConfig()) | {"max_length": "1", "weight_decay": "0.25"}
    page = as_client(admin).post(reverse("run-request", args=[voted_project.slug]), form)
    assert page.status_code == 400
    assert not any(group.collapsed for group in page.context["form"].groups())
    assert 'name="weight_decay" value="0.25"' in page.content.decode()
    assert "Choose 64 to 131072." in page.content.decode()


# -- what the loss can learn from


@pytest.mark.django_db
def test_dpo_is_refused_without_pairs_and_sft_needs_no_downs(
    voted_project: Project, admin: User
) -> None:
    dpo = RunConfig(loss="dpo")
    with pytest.raises(UserError, match="Loss: DPO learns from prompts with both an up and a down"):
        run_request(project=voted_project, by=admin, config=dpo)
    ups = Example.objects.filter(split="train", desirable=True)
    downs = Example.objects.filter(split="train", desirable=False)
    first, second = ups.first(), downs.first()
    assert first is not None
    assert second is not None
    second.completion.prompt = first.completion.prompt
    second.completion.save()
    plan = run_plan_shown(project=voted_project, config=dpo)
    assert plan is not None
    assert plan.objections == ()

    downs.delete()
    config = RunConfig(loss="sft", beta=None, batch_size=8)
    sft = run_plan_shown(project=voted_project, config=config)
    kto = run_plan_shown(project=voted_project, config=RunConfig())
    assert sft is not None
    assert kto is not None
    assert sft.objections == ()
    assert "KTO needs at least 4 of each" in kto.objections[0]


@pytest.mark.django_db
def test_plan_shows_the_lambdas_that_are_given(voted_project: Project) -> None:
    both = run_plan_shown(project=voted_project, config=RunConfig(lambda_d=3, lambda_u=2))
    one = run_plan_shown(project=voted_project, config=RunConfig(lambda_u=2))
    assert both is not None
    assert one is not None
    assert (both.lambda_d, both.lambda_u) == (3, 2)
    ratio = one.lambda_d * one.train_up / (2 * one.train_down)
    assert one.lambda_u == 2
    assert 1 - 1e-9 <= ratio <= 4 / 3 + 1e-9


# -- start from the live version


@pytest.fixture
def live(voted_project: Project, admin: User) -> Adapter:
    """Return a released version of rank 16."""
    run = run_request(project=voted_project, by=admin)
    Run.objects.update(status=Run.Status.SUCCEEDED)
    name = voted_project.adapter_name(run.number)
    adapter = Adapter.objects.create(
        project=voted_project, run=run, name=name, path=f"adapters/{name}", sha256="0" * 64
    )
    Project.objects.update(live_version=name)
    voted_project.refresh_from_db()
    return adapter


FROM_LIVE = RunConfig(start_from=LIVE)


@pytest.mark.django_db
def test_version_to_start_from_is_fixed_when_the_run_is_requested(
    live: Adapter, admin: User, settings: Any, tmp_path: Path
) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    run = run_request(project=live.project, by=admin, config=FROM_LIVE)
    assert start_version(run.config) == live.name
    Project.objects.update(live_version="base")
    run = Run.objects.select_related("project", "snapshot").get(pk=run.pk)
    run.directory.mkdir(parents=True)
    prepare(run)
    config = TrainConfig.from_dict(json.loads((run.directory / "config.json").read_text()))
    assert config.start_adapter is not None
    assert (run.directory / config.start_adapter).resolve() == live.directory.resolve()
    page = as_client(admin).get(reverse("run", args=[live.project.slug, run.number]))
    assert f'started from <span class="mono">{live.name}</span>' in page.content.decode()


@pytest.mark.django_db
def test_start_is_refused_with_the_label_where_it_cannot_work(
    voted_project: Project, admin: User
) -> None:
    with pytest.raises(UserError, match="Start from: no version is live"):
        run_request(project=voted_project, by=admin, config=FROM_LIVE)


@pytest.mark.django_db
def test_another_rank_than_the_live_version_is_refused(live: Adapter, admin: User) -> None:
    other = RunConfig(start_from=LIVE, lora_r=8, use_rslora=True)
    form = form_values(other) | {"seed": "77"}
    page = as_client(admin).post(reverse("run-request", args=[live.project.slug]), form)
    assert page.status_code == 400
    html = page.content.decode()
    assert f"LoRA rank: {live.name} has 16, and a run that starts from it needs the same" in html
    assert f"(rsLoRA): {live.name} has it off" in html
    assert 'name="seed" value="77"' in html


@pytest.mark.django_db
def test_version_of_a_pissa_run_is_continued_with_twice_its_rank(
    live: Adapter, admin: User
) -> None:
    stored = RunConfig(lora_init="pissa", lora_r=8, lora_alpha=12, target_modules="attention")
    Run.objects.filter(pk=live.run_id).update(config=stored.as_json())
    same = RunConfig(start_from=LIVE, lora_r=8, lora_alpha=12)
    with pytest.raises(UserError) as caught:
        run_request(project=live.project, by=admin, config=same)
    assert f"LoRA rank: {live.name} has 16," in str(caught.value)
    assert f"LoRA α: {live.name} has 24," in str(caught.value)
    assert f"Adapted layers: {live.name} has Attention," in str(caught.value)
    twice = RunConfig(start_from=LIVE, lora_r=16, lora_alpha=24, target_modules="attention")
    assert run_request(project=live.project, by=admin, config=twice).pk


@pytest.mark.django_db
def test_erased_votes_count_in_versions_that_continue_the_one_they_trained(
    live: Adapter, admin: User
) -> None:
    project = live.project
    second = run_request(project=project, by=admin, config=FROM_LIVE)
    Run.objects.update(status=Run.Status.SUCCEEDED)
    Erasure.objects.create(
        project=project, person=1, account=False, votes=5, runs=[live.run.number]
    )
    assert erased_votes(project) == 5
    project.live_version = project.adapter_name(second.number)
    assert erased_votes(project) == 5
    Run.objects.filter(pk=second.pk).update(config=RunConfig().as_json())
    assert erased_votes(project) == 0


# -- the command


@pytest.mark.django_db
def test_command_takes_every_setting(live: Adapter) -> None:
    given = []
    for name, value in form_values(OTHER).items():
        flag = f"--{name.replace('_', '-')}"
        given += [flag] if value == "on" else [flag, value or "none"]
    given[given.index("--lora-r") + 1] = "16"
    given[given.index("--lora-alpha") + 1] = "32"
    given[given.index("--use-rslora")] = "--no-use-rslora"
    given[given.index("--target-modules") + 1] = "all"
    out = StringIO()
    call_command("train", "--project", live.project.slug, *given, stdout=out)
    run = Run.objects.newest_first()[0]
    assert f"Run {run.number} waits" in out.getvalue()
    same = {"lora_r": 16, "lora_alpha": 32, "use_rslora": False, "target_modules": "all"}
    expected = OTHER.as_json(start_adapter=f"../../{live.path}") | same
    assert run.config == expected | chat_settings(run.project)


@pytest.mark.django_db
def test_command_refuses_with_the_label(voted_project: Project) -> None:
    with pytest.raises(CommandError, match="β: SFT on the ups has no β"):
        call_command("train", "--project", voted_project.slug, "--loss", "sft", "--beta", "0.3")
    given = ["--preset", "gentle", "--loss", "sft", "--batch-size", "8"]
    call_command("train", "--project", voted_project.slug, *given)
    assert (Run.objects.get().config["loss"], Run.objects.get().config["epochs"]) == ("sft", 1)
