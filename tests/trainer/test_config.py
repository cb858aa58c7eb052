"""TrainConfig: every fault at once, before anything else happens."""

import json
from pathlib import Path

import pytest

from trainer.config import TrainConfig
from trainer.errors import Refused

LEAST = {"base_model": "some/model", "adapter_name": "starter@3"}


def test_config_needs_only_base_and_name() -> None:
    config = TrainConfig.from_dict(LEAST)
    assert (config.loss, config.lora_r, config.lambda_d, config.max_length) == (
        "kto",
        16,
        None,
        1024,
    )
    assert TrainConfig.from_dict(config.as_dict()) == config


def test_config_reports_all_faults_together() -> None:
    with pytest.raises(Refused) as caught:
        TrainConfig.from_dict(
            {
                "adapter_name": "Starter 3",
                "learning_rte": 1,
                "beta": 0,
                "epochs": 1.5,
                "batch_size": True,
                "loss": "dpo",
                "lr_schedule": "step",
                "kl_brake": -1,
                "learning_rate": float("nan"),
            }
        )
    text = str(caught.value)
    assert len(caught.value.faults) == 10
    for word in (
        "unknown field 'learning_rte'",
        "base_model is missing",
        "adapter_name must read <project>@<n>",
        "beta must be above 0",
        "epochs must be a whole number",
        "batch_size must be a whole number",
        "loss must be one of kto",
        "lr_schedule must be one of",
        "kl_brake must be above 0",
        "learning_rate must be finite",
    ):
        assert word in text


def test_config_rank_beyond_the_limit_is_refused() -> None:
    with pytest.raises(Refused, match="lora_r must be at least 1 and at most 256"):
        TrainConfig.from_dict({**LEAST, "lora_r": 1000})


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{", "not valid JSON"), (b"[]", "must hold a JSON object"), (b"\xff", "not valid JSON")],
)
def test_config_file_that_is_no_config_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(Refused, match=reason):
        TrainConfig.read(tmp_path / "config.json")


def test_config_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is missing"):
        TrainConfig.read(tmp_path / "config.json")


def test_config_file_round_trip(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LEAST, "lambda_d": 2, "threads": 2}))
    config = TrainConfig.read(tmp_path / "config.json")
    assert (config.lambda_d, config.threads) == (2, 2)
