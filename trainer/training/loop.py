"""The training run: `python -m trainer train RUN_DIR`, from its config to its adapter."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from trainer.artifacts.adapter_directory import Manifest, write_adapter
from trainer.artifacts.environment import hardware, libraries
from trainer.artifacts.model_card import base_licence, model_card, read_curve
from trainer.backends import backend_for
from trainer.data.batches import Step, StepsOf
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import Cancelled
from trainer.evaluation.kl_probe import KlProbe
from trainer.events import EventLog
from trainer.forward.logprobs import Row, shares_prefixes
from trainer.losses import loss_named, update_anchor
from trainer.models.lora import MasterWeights, adapter_config
from trainer.signals import StopRequest
from trainer.training.checkpoint import Fit, Position, load_best, load_checkpoint, save_checkpoint
from trainer.training.early_stopping import (
    ADVICE,
    EarlyStopping,
    Limits,
    Probe,
    best_from,
    probe_interval,
    raise_if_diverged,
    ranking,
)
from trainer.training.event_payloads import start_values, step_values
from trainer.training.loss_scale import LossScale
from trainer.training.memory_budget import Budget
from trainer.training.reference_cache import ReferenceCache, complete
from trainer.training.run_directory import LoadedRun, write_fit
from trainer.training.schedule import beta_at, learning_rate
from trainer.training.start_adapter import new_adapter, start_identity
from trainer.training.step import StepResult, StepRunner


class Trainer:
    """A run's components and its training loop."""

    def __init__(
        self,
        run: LoadedRun,
        run_dir: Path,
        events: EventLog,
        stop: StopRequest,
        *,
        process_group: ProcessGroup | None = None,
        steps_of: StepsOf | None = None,
    ) -> None:
        config = run.config
        self.data = run
        self.config = config
        self.run_dir = run_dir
        self.checkpoints = run_dir / "checkpoints"
        self.checkpoints.mkdir(exist_ok=True)
        self.events = events
        self.stop = stop
        self.process_group = process_group or ProcessGroup()
        self.steps_of = steps_of or run.sampler.steps
        self.loss = loss_named(config.loss)
        # Tested once a model, before dropout is on: a later test would draw random numbers that a
        # resumed run does not draw.
        shares_prefixes(run.base.model)
        self.lora = new_adapter(run.base, config, sharded=self.process_group.sharded)
        if run.start is not None:
            self.lora.start_from(run.start.tensors)
        if config.compile and not backend_for(run.base.device).compile_layers(run.base.model):
            events.write(
                "warning",
                message=f"compile has no effect on {run.base.device.type}: its layers are left as "
                "they are",
            )
        #: Whether the policy of the first step is the reference: dropout changes an adapter whose B
        #: is not zero.
        zero = run.start is None and config.lora_init == "default"
        self.begins_as_reference = zero or config.lora_dropout == 0
        self.masters = MasterWeights(self.lora)
        self.optimizer = torch.optim.AdamW(
            self.masters.tensors.values(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        shared = config.reference_cache
        self.reference = ReferenceCache(
            run_dir / "reference" if shared is None else Path(shared),
            fingerprint=f"{run.base.fingerprint}/{run.base.dtype}/{run.base.device.type}"
            f"/{run.base.quantisation}{start_identity(config, run.start)}",
        )
        self.budget = Budget(
            pack=config.packs.token_budget, held=config.packs.held_tokens
        ).restored(self.checkpoints, self.process_group)
        self.loss_scale = LossScale(run.base.dtype, run.base.device)
        self.runner = StepRunner(
            model=run.base.model,
            lora=self.lora,
            masters=self.masters,
            reference=self.reference,
            examples=run.examples,
            loss=self.loss,
            lambdas=run.lambdas,
            max_length=config.max_length,
            budget=self.budget,
            process_group=self.process_group,
            checkpointing=config.packs.gradient_checkpointing,
            loss_scale=self.loss_scale,
            check=self._between_packs,
            on_less_memory=self._note_less_memory,
            sft_weight=config.sft_weight,
        )
        self.validation = replace(self.runner, examples=run.validation)
        self.validation_step = run.validation_step
        self.probe = KlProbe.of(run.examples, seed=config.seed)
        self.early_stopping = EarlyStopping(
            self.checkpoints,
            Limits(config.kl_brake, config.patience),
            events,
            masters=self.masters.tensors,
            writes=self.process_group.first,
        )
        self.step = 0
        self.seconds = 0.0
        self.mean_reward: float | None = None
        self.fit: dict[str, Fit] = {}

    def run(self) -> Manifest | None:
        """Train to the end (or an early stop) and write the adapter; return its manifest, or None
        where another process of the run writes it."""
        position = load_checkpoint(
            self.checkpoints,
            identity=self.data.identity,
            masters=self.masters.tensors,
            optimizer=self.optimizer,
        )
        if position is not None:
            self._restore(position)
        self._write_start(resumed_from=0 if position is None else position.step)
        try:
            self._steps()
        except Cancelled:
            self._checkpoint()
            raise
        self.events.write("phase", phase="saving", done=0, total=1)
        if not self.process_group.first:
            # the first process writes; the others wait until it has finished
            self.process_group.gather(None)
            return None
        tensors: dict[str, Tensor] = self.masters.tensors
        if self.early_stopping.best is not None and self.early_stopping.best.step != self.step:
            tensors, self.step = load_best(self.checkpoints)
        manifest = self._export(tensors)
        self.process_group.gather(None)
        return manifest

    def _steps(self) -> None:
        """Run steps until the last one or an early stop."""
        per_epoch = self.data.total_steps // self.config.epochs
        interval = probe_interval(
            self.config.probe_every,
            kl_brake=self.config.kl_brake,
            total_steps=self.data.total_steps,
        )
        while self.step < self.data.total_steps:
            epoch, offset = divmod(self.step, per_epoch)
            steps = self.steps_of(epoch)
            self._compute_reference(epoch, steps)
            self.events.write(
                "phase", phase="training", done=self.step, total=self.data.total_steps
            )
            for step in steps[offset:]:
                self._one_step(step, first_of_epoch=step is steps[0])
                last = self.step == self.data.total_steps
                if (last or self.step % interval == 0) and self._probe_stops():
                    return
                if self.step % self.config.checkpoint_every == 0 and not last:
                    self._checkpoint()
                self._raise_if_stopped()

    def _one_step(self, step: Step, *, first_of_epoch: bool) -> None:
        started = time.monotonic()
        number = self.step + 1
        # Dropout depends on (seed, step) alone, so that a resumed run repeats it.
        torch.manual_seed(self.config.seed * 1_000_003 + number)
        result = self.runner.backward(
            step,
            beta=beta_at(self.config, number, self.data.total_steps),
            mean_reward=self.mean_reward or 0.0,
            fresh=self.step == 0 and self.begins_as_reference,
        )
        raise_if_diverged(
            step=number,
            loss=result.loss,
            rewards=result.rewards,
            tokens=sum(len(self.data.examples[index].completion) for index in step.examples),
        )
        self.loss_scale.unscale(self.optimizer)
        norm = float(
            torch.nn.utils.clip_grad_norm_(self.masters.tensors.values(), self.config.max_grad_norm)
        )
        rate = learning_rate(self.config, number, self.data.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        lower_scale = self.loss_scale.step(
            self.optimizer, finite=math.isfinite(norm), number=number, advice=ADVICE
        )
        if lower_scale is None:
            self.masters.publish()

        # From here on the step has happened; no error above has changed weights or position.
        self.step = number
        elapsed = time.monotonic() - started
        self.seconds += elapsed
        self._record_fit(step, result, first_of_epoch=first_of_epoch)
        self.events.write(
            "step",
            **step_values(self.data, step, result, number=number, total_seconds=self.seconds),
            seconds=round(elapsed, 3),
            learning_rate=rate,
            grad_norm=norm if lower_scale is None else 0.0,
        )
        if lower_scale is not None:
            self.events.write(
                "warning",
                message=f"step {number} changed nothing: its gradient overflows float16; the loss "
                f"scale is {lower_scale:g} now",
            )
        self._write_backend_warnings()

    def _record_fit(self, step: Step, result: StepResult, *, first_of_epoch: bool) -> None:
        """Record each example's reward, and update the running mean of rewards."""
        if first_of_epoch:
            self.fit.clear()
        for index, reward in zip(step.examples, result.rewards, strict=True):
            example = self.data.examples[index]
            self.fit[example.id] = Fit(example.id, example.label, reward, result.z0)
        if self.loss.anchor == "mean":
            labels = [self.data.examples[index].label for index in step.examples]
            self.mean_reward = update_anchor(
                self.mean_reward, torch.tensor(result.rewards), torch.tensor(labels)
            )

    def _probe_stops(self) -> bool:
        """Probe the policy; return whether the run must end here."""
        found = self.probe.measure(
            self.data.base.model, self.data.base.tokenizer, self.lora, step=self.step
        )
        loss = order = None
        # The first process decides: processes may differ in the last bit.
        kl_per_token = self.process_group.gather(found.per_token)[0]
        if self.validation_step is not None:
            measured = self.validation.measure(
                self.validation_step, beta=self.config.beta, mean_reward=self.mean_reward or 0.0
            )
            loss = measured.loss
            labels = [self.data.validation[at].label for at in self.validation_step.examples]
            order = ranking(measured.rewards, labels)
        return self.early_stopping.stops(
            Probe(self.step, kl_per_token, len(found.answers), loss, order)
        )

    def _write_start(self, *, resumed_from: int) -> None:
        self.events.write(
            "start",
            **start_values(self.data, resumed_from=resumed_from, processes=self.process_group.size),
        )
        for message in self.data.warnings:
            self.events.write("warning", message=message)
        self._write_backend_warnings()

    def _write_backend_warnings(self) -> None:
        for message in backend_for(self.data.base.device).new_warnings():
            self.events.write("warning", message=message)

    def _compute_reference(self, epoch: int, steps: Sequence[Step]) -> None:
        """Compute log-probabilities of the reference for all rows that the epoch scores, except
        cached ones and those of the run's first step, if it computes its own."""
        rows: list[Row] = []
        for step in steps[1:] if epoch == 0 and self.begins_as_reference else steps:
            own, mismatched = self.runner.rows(step)
            rows += own + mismatched
        if self.validation_step is not None:
            own, mismatched = self.validation.rows(self.validation_step)
            rows += own + mismatched
        # how many rows are missing is not known yet
        self.events.write("phase", phase="reference", done=0, total=0)
        with self.lora.off():
            complete(
                self.reference,
                self.data.base.model,
                rows,
                token_budget=self.config.packs.token_budget,
                plan=self.checkpoints / f"reference-{epoch}.json",
                on_progress=_progress(self.events, "reference", self._between_packs),
                process_group=self.process_group,
            )

    def _export(self, tensors: dict[str, Tensor]) -> Manifest:
        run, config = self.data, self.config
        position = self._position()
        write_fit(self.run_dir / "fit.jsonl", position.fit)
        manifest = write_adapter(
            self.run_dir / "adapter",
            name=config.adapter_name,
            tensors=self.lora.saved(tensors, run.base.dtype),
            adapter_config=adapter_config(self.lora, base_model=config.base_model),
            base_model=config.base_model,
            base_sha256=run.base.fingerprint,
            rank=self.lora.saved_rank,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            train={
                "desirable": run.desirable,
                "undesirable": run.undesirable,
                "lambda_d": run.lambdas.desirable,
                "lambda_u": run.lambdas.undesirable,
                "steps": position.step,
                "seconds": position.seconds,
                "config": config.as_dict(),
                "start": None
                if run.start is None
                else {"name": run.start.name, "sha256": run.start.sha256},
                "libraries": libraries(),
                "hardware": hardware(),
            },
            card=model_card(
                config,
                desirable=run.desirable,
                undesirable=run.undesirable,
                lambdas=run.lambdas,
                steps=position.step,
                base_sha256=run.base.fingerprint,
                start=None if run.start is None else (run.start.name, run.start.sha256),
                licence=base_licence(config.base_model),
                curve=read_curve(self.run_dir / "events.jsonl", up_to=position.step),
            ),
        )
        self.events.write("done", adapter=str(self.run_dir / "adapter"), sha256=manifest.sha256)
        return manifest

    def _restore(self, position: Position) -> None:
        self.masters.publish()
        self.step = position.step
        self.seconds = position.seconds
        self.early_stopping.best = best_from(position.best)
        self.mean_reward = position.mean_reward
        self.loss_scale.restore(position.loss_scale)
        self.fit = {fit.id: fit for fit in position.fit}

    def _position(self) -> Position:
        return Position(
            identity=self.data.identity,
            step=self.step,
            seconds=round(self.seconds, 3),
            fit=tuple(self.fit.values()),
            best=None if self.early_stopping.best is None else asdict(self.early_stopping.best),
            mean_reward=self.mean_reward,
            loss_scale=self.loss_scale.state(),
        )

    def _checkpoint(self) -> None:
        if self.step == 0 or not self.process_group.first:
            return  # before the first step there is nothing to save
        save_checkpoint(
            self.checkpoints,
            self._position(),
            masters=self.masters.tensors,
            optimizer=self.optimizer,
        )
        self.events.write("checkpoint", step=self.step)

    def _note_less_memory(self, message: str) -> None:
        self.events.write("warning", message=message)
        # Where the base is sharded, the process that ran out of memory is the only one that knows.
        if self.process_group.first or self.process_group.sharded:
            self.budget.store(self.checkpoints)

    def _between_packs(self) -> None:
        # Several processes must stop at the same point: after a step, not within it.
        if self.stop.asked and self.process_group.size == 1:
            raise Cancelled(self.step)

    def _raise_if_stopped(self) -> None:
        if self.process_group.any(self.stop.asked, self.data.base.device):
            raise Cancelled(self.step)


def _progress(
    events: EventLog, phase: str, check: Callable[[], None]
) -> Callable[[int, int], None]:
    """Return a callback that writes a phase event at most once a second and calls `check`."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        check()
        if done == total or time.monotonic() - last > 1:
            last = time.monotonic()
            events.write("phase", phase=phase, done=done, total=total)

    return report
