"""Our step against TRL's KTOTrainer on the same batch: loss, z₀, rewards and LoRA gradients.

TRL pairs each prompt with the completion of the row before it; the same pairs are given to our
step. Both work in fp32 on the same tiny random Llama with the same adapter weights.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.batches import Step
from trainer.logprobs import Row
from trainer.lora import Lora
from trainer.losses import Lambdas, kto
from trainer.model import LoadedBase, load_base
from trainer.reference import ReferenceCache
from trainer.step import StepResult, StepRunner
from trainer.tokenise import Tokenised

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:importlib._bootstrap"),
]

BETA = 0.4
WEIGHTS = Lambdas(1.5, 0.75)
LABELS = (True, False, False, True, False)
ROWS: list[Row] = [
    ((5, 6, 7), (8, 9, 10, 11)),
    ((12,), (13,)),
    ((20, 21, 22, 23, 24), (25, 26)),
    ((30, 31), (32, 33, 34, 35, 36, 37, 38)),
    ((40, 41, 42), (43, 44)),
]


class Oracle:
    """TRL's trainer with a PEFT adapter of known weights."""

    def __init__(self, tiny_dir: Path, output: Path, weights: dict[str, Tensor]) -> None:
        from datasets import Dataset
        from peft import LoraConfig
        from trl import KTOConfig, KTOTrainer

        base = load_base(str(tiny_dir), dtype="float32", device="cpu")
        rows = [
            {"prompt": f"p{number}", "completion": f"c{number}", "label": label}
            for number, label in enumerate(LABELS)
        ]
        self.trainer = KTOTrainer(
            model=base.model,
            processing_class=base.tokenizer,
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"),
            args=KTOConfig(
                output_dir=str(output),
                per_device_train_batch_size=len(LABELS),
                beta=BETA,
                desirable_weight=WEIGHTS.desirable,
                undesirable_weight=WEIGHTS.undesirable,
                report_to=[],
                use_cpu=True,
                bf16=False,
                activation_checkpointing=False,
                disable_tqdm=True,
            ),
        )
        self.named = {
            name.replace(".default.weight", ".weight"): parameter
            for name, parameter in self.trainer.model.named_parameters()
            if "lora_" in name
        }
        for name, parameter in self.named.items():
            parameter.data.copy_(weights[name])

    def step(self, partners: tuple[int, ...]) -> tuple[float, dict[str, float]]:
        """Loss and logged metrics; gradients are left on `named`."""
        batch = self.trainer.data_collator(
            [
                {
                    "prompt_ids": list(prompt),
                    "completion_ids": list(completion),
                    "KL_completion_ids": list(ROWS[partner][1]),
                    "label": label,
                }
                for (prompt, completion), partner, label in zip(ROWS, partners, LABELS, strict=True)
            ]
        )
        self.trainer.model.train()
        loss = self.trainer.compute_loss(self.trainer.model, batch)
        loss.backward()
        metrics = self.trainer._metrics["train"]
        return loss.item(), {key: values[-1] for key, values in metrics.items()}


def our_step(
    tiny: LoadedBase, path: Path, scale: float, partners: tuple[int, ...], budget: int
) -> tuple[StepResult, Lora, dict[str, Tensor]]:
    lora = Lora.attach(tiny.model, rank=4, alpha=8)
    generator = torch.Generator().manual_seed(11)
    weights = {
        name: torch.randn(parameter.shape, generator=generator) * scale
        for name, parameter in lora.parameters().items()
    }
    lora.load(weights)
    runner = StepRunner(
        model=tiny.model,
        lora=lora,
        reference=ReferenceCache(path / "reference.jsonl", fingerprint="tiny"),
        examples=[
            Tokenised(str(number), tuple(prompt), tuple(completion), label, 1.0, str(number))
            for number, ((prompt, completion), label) in enumerate(zip(ROWS, LABELS, strict=True))
        ],
        loss=kto,
        lambdas=WEIGHTS,
        beta=BETA,
        max_length=64,
        token_budget=budget,
        after_micro_batch=lambda: None,
    )
    return runner.backward(Step(tuple(range(5)), partners)), lora, weights


@pytest.mark.parametrize(
    ("scale", "clamped"), [(0.05, True), (0.3, False)], ids=["z0-clamped", "z0-above-zero"]
)
def test_step_equals_trl(
    tiny: LoadedBase, tiny_dir: Path, tmp_path: Path, scale: float, clamped: bool
) -> None:
    partners = (4, 0, 1, 2, 3)
    ours, lora, weights = our_step(tiny, tmp_path, scale, partners, budget=16)
    oracle = Oracle(tiny_dir, tmp_path / "trl", weights)
    loss, metrics = oracle.step(partners)

    assert (ours.z0_unclamped < 0) == clamped
    assert ours.loss == pytest.approx(loss, abs=1e-4)
    assert ours.z0 == pytest.approx(metrics["kl"], abs=1e-4)
    up = [r for r, label in zip(ours.rewards, LABELS, strict=True) if label]
    down = [r for r, label in zip(ours.rewards, LABELS, strict=True) if not label]
    assert BETA * sum(up) / len(up) == pytest.approx(metrics["rewards/chosen"], abs=1e-4)
    assert BETA * sum(down) / len(down) == pytest.approx(metrics["rewards/rejected"], abs=1e-4)
    found: dict[str, Any] = lora.parameters()
    assert found.keys() == oracle.named.keys()
    largest = max(parameter.grad.abs().max().item() for parameter in oracle.named.values())
    assert largest > 1e-3
    for name, parameter in oracle.named.items():
        torch.testing.assert_close(found[name].grad, parameter.grad, rtol=1e-4, atol=1e-4)
