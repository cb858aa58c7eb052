"""The training run: `python -m trainer train RUN_DIR`, from its config to its adapter."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from trainer.artifact import Manifest, write_adapter
from trainer.batches import Step, epoch_steps
from trainer.card import model_card
from trainer.checkpoint import (
    Fit,
    Position,
    load_checkpoint,
    load_under_brake,
    save_checkpoint,
    save_under_brake,
)
from trainer.errors import Cancelled, RunFailed
from trainer.events import EventLog
from trainer.lora import Lora, MasterWeights, adapter_config
from trainer.losses import loss_named
from trainer.probe import KlProbe
from trainer.reference import ReferenceCache
from trainer.run import LoadedRun, write_fit
from trainer.schedule import learning_rate
from trainer.signals import StopRequest
from trainer.step import StepResult, StepRunner
from trainer.telling import start_values, step_values

# Nobody's thumbs are worth a factor of e^10 on every single token: the weights have run away.
_EXPLODED_NATS_PER_TOKEN = 10.0
_ADVICE = "lower learning_rate or max_grad_norm, or raise beta, and start a new run"


class Trainer:
    """One run's moving parts, put together once and stepped until done."""

    def __init__(self, run: LoadedRun, run_dir: Path, events: EventLog, stop: StopRequest) -> None:
        config = run.config
        self.data = run
        self.config = config
        self.run_dir = run_dir
        self.checkpoints = run_dir / "checkpoints"
        self.checkpoints.mkdir(exist_ok=True)
        self.events = events
        self.stop = stop
        if run.base.device.type == "cpu":
            # For rows of a few hundred tokens plain matrix products beat the fused kernel here.
            run.base.model.set_attn_implementation("eager")
        self.lora = Lora.attach(
            run.base.model,
            rank=config.lora_r,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            seed=config.seed,
        )
        self.masters = MasterWeights(self.lora)
        self.optimizer = torch.optim.AdamW(
            self.masters.tensors.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.runner = StepRunner(
            model=run.base.model,
            lora=self.lora,
            reference=ReferenceCache(
                run_dir / "reference.jsonl",
                fingerprint=f"{run.base.fingerprint}/{run.base.dtype}/{run.base.device.type}",
            ),
            examples=run.examples,
            loss=loss_named(config.loss),
            lambdas=run.lambdas,
            beta=config.beta,
            max_length=config.max_length,
            token_budget=config.token_budget,
            after_micro_batch=self._after_micro_batch,
        )
        self.probe = KlProbe.of(run.examples, seed=config.seed)
        self.step = 0
        self.seconds = 0.0
        self.under_brake: int | None = None
        self.fit: dict[str, Fit] = {}

    def run(self) -> Manifest:
        """Train to the end (or to the brake) and write the adapter."""
        position = load_checkpoint(
            self.checkpoints,
            identity=self.data.identity,
            masters=self.masters.tensors,
            optimizer=self.optimizer,
        )
        if position is not None:
            self._restore(position)
        self._announce(resumed_from=0 if position is None else position.step)
        self._compute_reference()
        self.events.write("phase", phase="training", done=self.step, total=self.data.total_steps)
        try:
            braked = self._steps()
        except Cancelled:
            self._checkpoint()
            raise
        self.events.write("phase", phase="saving", done=0, total=1)
        tensors = self.masters.tensors
        if braked:
            tensors, self.step = load_under_brake(self.checkpoints)
        return self._export(tensors)

    def _steps(self) -> bool:
        """Step until the last step or the brake; True when the brake ended it."""
        per_epoch = self.data.total_steps // self.config.epochs
        while self.step < self.data.total_steps:
            epoch, offset = divmod(self.step, per_epoch)
            steps = epoch_steps(
                self.data.examples,
                batch_size=self.config.batch_size,
                seed=self.config.seed,
                epoch=epoch,
            )
            for step in steps[offset:]:
                self._one_step(step, first_of_epoch=step is steps[0])
                last = self.step == self.data.total_steps
                if (last or self.step % self.config.probe_every == 0) and self._over_brake():
                    return True
                if self.step % self.config.checkpoint_every == 0 and not last:
                    self._checkpoint()
                self._raise_if_stopped()
        return False

    def _one_step(self, step: Step, *, first_of_epoch: bool) -> None:
        started = time.monotonic()
        number = self.step + 1
        # Dropout depends on (seed, step) alone: a resumed run draws what it would have drawn.
        torch.manual_seed(self.config.seed * 1_000_003 + number)
        self.masters.clear()
        result = self.runner.backward(step)
        self._raise_if_broken(number, result, step)
        norm = float(
            torch.nn.utils.clip_grad_norm_(self.masters.tensors.values(), self.config.max_grad_norm)
        )
        if not math.isfinite(norm):
            raise RunFailed("the gradient is not finite", step=number, advice=_ADVICE)
        rate = learning_rate(self.config, number, self.data.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.masters.publish()

        # From here on the step has happened; nothing above has changed weights or position.
        self.step = number
        elapsed = time.monotonic() - started
        self.seconds += elapsed
        if first_of_epoch:
            self.fit.clear()
        for index, reward in zip(step.examples, result.rewards, strict=True):
            example = self.data.examples[index]
            self.fit[example.id] = Fit(example.id, example.label, reward, result.z0)
        self.events.write(
            "step",
            **step_values(self.data, step, result, number=number, total_seconds=self.seconds),
            seconds=round(elapsed, 3),
            learning_rate=rate,
            grad_norm=norm,
        )

    def _raise_if_broken(self, number: int, result: StepResult, step: Step) -> None:
        lengths = [len(self.data.examples[index].completion) for index in step.examples]
        if not math.isfinite(result.loss) or not all(map(math.isfinite, result.rewards)):
            raise RunFailed("the loss is not a finite number", step=number, advice=_ADVICE)
        drift = sum(map(abs, result.rewards)) / sum(lengths)
        if drift > _EXPLODED_NATS_PER_TOKEN:
            raise RunFailed(
                f"the policy exploded ({drift:.1f} nats a token away from the reference)",
                step=number,
                advice=_ADVICE,
            )

    def _over_brake(self) -> bool:
        """Probe; keep the adapter when it is under the brake, else say so and stop the run."""
        found = self.probe.measure(
            self.data.base.model, self.data.base.tokenizer, self.lora, step=self.step
        )
        self.events.write(
            "probe", step=self.step, kl_per_token=found.per_token, answers=len(found.answers)
        )
        brake = self.config.kl_brake
        if not math.isfinite(found.per_token):
            raise RunFailed("the KL probe is not finite", step=self.step, advice=_ADVICE)
        if brake is None or found.per_token <= brake:
            self.under_brake = self.step
            save_under_brake(self.checkpoints, self.masters.tensors, step=self.step)
            return False
        if self.under_brake is None:
            raise RunFailed(
                f"KL of {found.per_token:.2f} nats a token is over the brake of {brake:g} and no "
                "earlier adapter was under it",
                step=self.step,
                advice=_ADVICE,
            )
        self.events.write(
            "braked",
            step=self.step,
            kl_per_token=found.per_token,
            message=f"stopped at step {self.step}: KL of {found.per_token:.2f} nats a token is "
            f"over the brake of {brake:g}; the adapter of step {self.under_brake} is kept",
        )
        return True

    def _announce(self, *, resumed_from: int) -> None:
        self.events.write("start", **start_values(self.data, resumed_from=resumed_from))
        for message in self.data.warnings:
            self.events.write("warning", message=message)

    def _compute_reference(self) -> None:
        rows = [(example.prompt, example.completion) for example in self.data.examples]
        report = _progress(self.events, "reference", self._raise_if_stopped)
        with self.lora.off():
            self.runner.reference.logprobs(
                self.data.base.model,
                rows,
                token_budget=self.config.token_budget,
                on_progress=report,
            )

    def _export(self, tensors: dict[str, Tensor]) -> Manifest:
        run, config = self.data, self.config
        position = self._position()
        write_fit(self.run_dir / "fit.jsonl", position.fit)
        manifest = write_adapter(
            self.run_dir / "adapter",
            name=config.adapter_name,
            tensors={name: tensor.to(run.base.dtype) for name, tensor in tensors.items()},
            adapter_config=adapter_config(self.lora, base_model=config.base_model),
            base_model=config.base_model,
            base_sha256=run.base.fingerprint,
            rank=config.lora_r,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            train={
                "desirable": run.desirable,
                "undesirable": run.undesirable,
                "lambda_d": run.lambdas.desirable,
                "lambda_u": run.lambdas.undesirable,
                "steps": position.step,
                "seconds": position.seconds,
                "config": config.as_dict(),
            },
            card=model_card(
                config,
                desirable=run.desirable,
                undesirable=run.undesirable,
                lambdas=run.lambdas,
                steps=position.step,
            ),
        )
        self.events.write("done", adapter=str(self.run_dir / "adapter"), sha256=manifest.sha256)
        return manifest

    def _restore(self, position: Position) -> None:
        self.masters.publish()
        self.step = position.step
        self.seconds = position.seconds
        self.under_brake = position.under_brake
        self.fit = {fit.id: fit for fit in position.fit}

    def _position(self) -> Position:
        return Position(
            identity=self.data.identity,
            step=self.step,
            seconds=round(self.seconds, 3),
            fit=tuple(self.fit.values()),
            under_brake=self.under_brake,
        )

    def _checkpoint(self) -> None:
        if self.step == 0:
            return  # the first step costs no more than reading a checkpoint of nothing
        save_checkpoint(
            self.checkpoints,
            self._position(),
            masters=self.masters.tensors,
            optimizer=self.optimizer,
        )
        self.events.write("checkpoint", step=self.step)

    def _after_micro_batch(self) -> None:
        self.masters.collect()
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self.stop.asked:
            raise Cancelled(self.step)


def _progress(
    events: EventLog, phase: str, check: Callable[[], None]
) -> Callable[[int, int], None]:
    """Write a phase event at most once a second, and look for a stop each time."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        check()
        if done == total or time.monotonic() - last > 1:
            last = time.monotonic()
            events.write("phase", phase=phase, done=done, total=total)

    return report
