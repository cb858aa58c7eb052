"""TRL's KTOTrainer on the rows of training.py, with the same adapter and batches.

Its first step is left out, as ours has a run before the one that is timed. It computes its
reference in each step, its default.
"""

import time
from typing import Any

import torch
from transformers import TrainerCallback

from bench.gpu import memory
from bench.gpu.models import loaded, prepared
from bench.gpu.parts import Job
from bench.gpu.training import BATCH, settings
from bench.trainer_vs_trl.rows import make_rows
from trainer.config import TrainConfig
from trainer.models.loading import LoadedBase


class Steps(TrainerCallback):
    """Records when each step ended; the peak of memory is counted from the first one on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ended: list[float] = []

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if not self.ended:
            memory.reset(self.device)
        self.ended.append(time.monotonic())


def measure(job: Job) -> dict[str, Any]:
    """Return examples per second and peak memory."""
    import trl

    path = prepared(job.part.model, job.directory)
    device = torch.device(job.device)
    base = loaded(path, quantisation=None, device=device)
    steps = Steps(device)
    trainer(job, settings(job, str(path)), base, steps).train()
    seconds = steps.ended[-1] - steps.ended[0]
    return {
        "examples_per_second": (job.examples - BATCH) / seconds,
        "peak": memory.peak(device),
        "notes": f"TRL {trl.__version__}",
    }


def trainer(job: Job, config: TrainConfig, base: LoadedBase, steps: Steps) -> Any:
    """Return TRL's trainer."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import KTOConfig, KTOTrainer

    rows = make_rows(base.tokenizer, count=job.examples, per_prompt=1)
    return KTOTrainer(
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
        callbacks=[steps],
        args=KTOConfig(
            output_dir=str(job.directory / "out"),
            beta=config.beta,
            learning_rate=config.learning_rate,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            max_length=config.max_length,
            bf16=True,
            gradient_checkpointing=False,
            use_cpu=job.device == "cpu",
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
        ),
    )
