"""TRL's KTOTrainer on the rows, unchanged: text as input, its own tokenisation, pairs and loop.

Run as a child process by bench.trainer_vs_trl. Three things are set from outside, so that its
losses can be compared with ours: the adapter's initial weights, the learning rate of each step and
equal class weights. Its bfloat16 is the mixed precision that is its default, on a model loaded in
bfloat16: the fastest of four variants (with and without it, SDPA and eager attention).
"""

# torch first: our packages set OpenMP's passive waiting when they are imported, unlike TRL.
import torch  # isort: skip
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from trl import KTOConfig, KTOTrainer

from bench.trainer_vs_trl.job import Job, Result
from bench.trainer_vs_trl.memory import Start
from bench.trainer_vs_trl.rows import Row
from trainer.config import TrainConfig
from trainer.models.loading import load_base
from trainer.models.lora import Lora
from trainer.training.schedule import learning_rate


class Watched(KTOTrainer):
    """KTOTrainer that records when its reference pass begins and the loss of each step."""

    def __init__(self, config: TrainConfig, **arguments: Any) -> None:
        self.config = config
        self.began: float | None = None
        self.start: Start | None = None
        self.losses: list[float] = []
        super().__init__(**arguments)

    def begin(self) -> None:
        """Mark the start of training work, unless it has started before."""
        if self.began is None:
            self.start = Start.now()
            self.began = time.monotonic()

    def _precompute_ref_logps(self, *arguments: Any) -> Any:
        self.begin()
        return super()._precompute_ref_logps(*arguments)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        self.lr_scheduler = LambdaLR(
            optimizer or self.optimizer,
            lambda done: (
                learning_rate(self.config, done + 1, num_training_steps) / self.config.learning_rate
            ),
        )
        return self.lr_scheduler

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        loss = super().compute_loss(*arguments, **named)
        self.losses.append(loss.item())
        return loss


class LastStep(TrainerCallback):
    """Records the moment after the optimiser's last step."""

    def __init__(self) -> None:
        self.ended = 0.0

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        self.ended = time.monotonic()


def main(job: Job) -> None:
    config = TrainConfig.from_dict(job.config)
    assert config.threads is not None
    torch.set_num_threads(config.threads)
    rows = Row.read_all(Path(job.rows))
    base = load_base(config.base_model, dtype=config.dtype, device="cpu")
    weights = first_weights(base.model, config)
    last = LastStep()
    trainer = Watched(
        config,
        model=base.model,
        processing_class=base.tokenizer,
        train_dataset=Dataset.from_list(
            [
                {"prompt": row.prompt, "completion": row.completion, "label": row.label}
                for row in rows
            ]
        ),
        peft_config=LoraConfig(
            r=config.lora_r, lora_alpha=config.lora_alpha, target_modules="all-linear"
        ),
        callbacks=[last],
        args=KTOConfig(
            output_dir=str(job.directory / "out"),
            beta=config.beta,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            max_length=config.max_length,
            precompute_ref_log_probs=job.precompute,
            bf16=config.dtype == "bfloat16",
            gradient_checkpointing=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
        ),
    )
    for name, parameter in trainer.model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(weights[name.replace(".default.weight", ".weight")])
    trainer.begin()
    trainer.train()
    assert trainer.start is not None
    assert trainer.began is not None
    peak = trainer.start.peak_since()
    Result(
        seconds=last.ended - trainer.began,
        losses=tuple(trainer.losses),
        steps=steps_of(trainer.train_dataset, rows, config.batch_size),
        peak=peak.whole,
        loaded=peak.at_start,
        peak_training=peak.since_start,
    ).write(job)


def first_weights(model: Any, config: TrainConfig) -> dict[str, Tensor]:
    """Return the adapter weights that our trainer would start from; leave the model unchanged."""
    lora = Lora.attach(model, rank=config.lora_r, alpha=config.lora_alpha, seed=config.seed)
    weights = {name: value.detach().clone() for name, value in lora.parameters().items()}
    lora.detach()
    return weights


def steps_of(
    dataset: Any, rows: Sequence[Row], batch_size: int
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Return its steps: rows in file order, each prompt with the previous completion of the batch.
    Also check that its token ids equal ours, and its pairs these."""
    steps = []
    for low in range(0, len(rows), batch_size):
        chosen = tuple(range(low, min(low + batch_size, len(rows))))
        mismatched = (chosen[-1], *chosen[:-1])
        for index, other in zip(chosen, mismatched, strict=True):
            found = dataset[index]
            assert tuple(found["prompt_ids"]) == rows[index].prompt_ids
            assert tuple(found["completion_ids"]) == rows[index].completion_ids
            assert tuple(found["KL_completion_ids"]) == rows[other].completion_ids
        steps.append((chosen, mismatched))
    return tuple(steps)


if __name__ == "__main__":
    main(Job.read(sys.argv[1]))
