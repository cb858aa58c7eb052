"""A minimal check of the real model: SmolLM2 loads, answers, and trains two steps."""

import json
from pathlib import Path

import pytest

from tests.trainer.conftest import events, example
from trainer.artifacts.adapter_directory import verify_adapter
from trainer.data.examples import Example, write_examples
from trainer.data.messages import Message
from trainer.evaluation.answer import answer
from trainer.evaluation.generate import Sampling
from trainer.models.loading import prepare
from trainer.training.train import train

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(600)]

MODELS = Path(__file__).resolve().parents[3] / "var" / "models"


@pytest.fixture(scope="module")
def smollm() -> str:
    return str(prepare(MODELS, say=lambda line: None))


@pytest.mark.long
def test_smollm_answers_a_question(smollm: str) -> None:
    (text,) = answer(
        ["What is the capital of France?"],
        model=smollm,
        adapter=None,
        system=None,
        sampling=Sampling(max_tokens=24, temperature=0.0),
        dtype="auto",
        device="cpu",
    )
    assert "Paris" in text


def test_smollm_trains_two_steps(smollm: str, tmp_path: Path) -> None:
    def about(number: int, question: str, text: str, *, label: bool) -> Example:
        return example(number, prompt=(Message("user", question),), completion=text, label=label)

    examples = [
        about(0, "What is rain?", "Water that falls from clouds.", label=True),
        about(1, "What is snow?", "Snow snow snow snow snow snow", label=False),
        about(2, "What is wind?", "Moving air.", label=True),
        about(3, "What is fog?", "Fog fog fog fog fog fog fog", label=False),
    ]
    write_examples(tmp_path / "examples.jsonl", examples)
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "base_model": smollm,
                "adapter_name": "starter@1",
                "batch_size": 4,
                "epochs": 2,
                "learning_rate": 5e-4,
                "warmup_ratio": 0,
                "kl_brake": None,
                "probe_every": 100,
                "device": "cpu",
            }
        )
    )
    train(tmp_path)
    first, second = events(tmp_path, "step")
    assert first["loss"] == pytest.approx(0.5, abs=0.02)
    assert second["margin"] > first["margin"]
    assert second["loss"] < first["loss"]
    manifest = verify_adapter(tmp_path / "adapter", base_fingerprint=None, max_rank=16)
    assert manifest.train["steps"] == 2
