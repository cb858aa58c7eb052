"""TrainConfig: all errors are reported together, before anything else happens."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.config import TrainConfig
from trainer.errors import Refused
from trainer.losses import LOSSES
from trainer.training.schedule import beta_at, learning_rate

LEAST = {"base_model": "some/model", "adapter_name": "starter@3"}


def test_run_directory_of_a_renamed_loss_is_refused_with_its_new_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LEAST, "loss": "kto_humanline"}))
    with pytest.raises(Refused, match=r"it is called 'kto_clamped' now, set that"):
        TrainConfig.read(path)


def test_config_needs_only_base_and_name() -> None:
    config = TrainConfig.from_dict(LEAST)
    assert (config.loss, config.lora_r, config.lambda_d, config.max_length) == (
        "kto",
        16,
        None,
        1024,
    )
    assert TrainConfig.from_dict(config.as_dict()) == config


def test_config_reports_all_errors_together() -> None:
    with pytest.raises(Refused) as caught:
        TrainConfig.from_dict(
            {
                "adapter_name": "Starter 3",
                "learning_rte": 1,
                "beta": 0,
                "epochs": 1.5,
                "batch_size": True,
                "loss": "ppo",
                "beta_schedule": "cosine",
                "lr_schedule": "step",
                "kl_brake": -1,
                "learning_rate": float("nan"),
            }
        )
    text = str(caught.value)
    assert len(caught.value.faults) == 11
    for word in (
        "unknown field 'learning_rte'",
        "base_model is missing",
        "adapter_name must read <project>@<n>",
        "beta must be above 0",
        "epochs must be a whole number",
        "batch_size must be a whole number",
        "loss must be one of kto, kto_clamped, apo_zero_unpaired, bco, sft, dpo, not 'ppo'",
        "beta_schedule must be one of constant, linear_warmup",
        "lr_schedule must be one of",
        "kl_brake must be above 0",
        "learning_rate must be finite",
    ):
        assert word in text


def test_config_rank_beyond_the_limit_is_refused() -> None:
    with pytest.raises(Refused, match="lora_r must be at least 1 and at most 256"):
        TrainConfig.from_dict({**LEAST, "lora_r": 1000})


def test_config_accepts_every_loss_and_a_batch_of_one() -> None:
    # preflight checks whether the loss can use the snapshot (test_preflight.py)
    for name in LOSSES:
        assert TrainConfig.from_dict({**LEAST, "loss": name, "batch_size": 1}).loss == name
    with pytest.raises(Refused, match="batch_size must be at least 1"):
        TrainConfig.from_dict({**LEAST, "batch_size": 0})


def test_beta_is_constant_unless_its_warm_up_is_on() -> None:
    config = TrainConfig.from_dict({**LEAST, "beta": 0.4, "warmup_ratio": 0.4})
    assert [beta_at(config, step, 10) for step in (1, 4, 10)] == [0.4, 0.4, 0.4]
    # warm-up of 0.4·10 = 4 steps: a quarter of β more in each
    rising = replace(config, beta_schedule="linear_warmup")
    found = [beta_at(rising, step, 10) for step in range(1, 11)]
    assert found == pytest.approx([0.1, 0.2, 0.3] + [0.4] * 7)
    # β reaches its value together with the learning rate
    rates = [learning_rate(rising, step, 10) for step in range(1, 11)]
    assert rates.index(max(rates)) == 3


def test_beta_schedule_without_warm_up_starts_at_beta() -> None:
    rising = TrainConfig.from_dict(
        {**LEAST, "beta": 0.4, "warmup_ratio": 0, "beta_schedule": "linear_warmup"}
    )
    assert beta_at(rising, 1, 10) == 0.4


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{", "not valid JSON"), (b"[]", "must hold a JSON object"), (b"\xff", "not valid JSON")],
)
def test_malformed_config_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(Refused, match=reason):
        TrainConfig.read(tmp_path / "config.json")


def test_missing_config_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is missing"):
        TrainConfig.read(tmp_path / "config.json")


def test_config_file_round_trip(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LEAST, "lambda_d": 2, "threads": 2}))
    config = TrainConfig.read(tmp_path / "config.json")
    assert (config.lambda_d, config.threads) == (2, 2)
