"""Everything that runs on a GPU, run on the device of device.py and on the CPU:
`python -m tests.trainer.placement.run TINY_MODEL SCRATCH` writes SCRATCH/found.json, by scenario
what both found, how often the host waited, and the error where one was raised."""

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.tiny import make_tiny_adapter
from tests.trainer.conftest import events, example, write_run
from tests.trainer.evaluation.test_evaluate import change, make_eval, report_of
from tests.trainer.placement.device import NAME, Device, device
from tests.trainer.training.test_step import Bench, step_of
from trainer import config as training_config
from trainer.backends import serving_decoder
from trainer.data.chat import eos_ids, prompt_ids
from trainer.data.examples import write_examples
from trainer.engine.adapters import read_adapter
from trainer.engine.batch import Batch, Row
from trainer.engine.prefix_cache import PrefixCache
from trainer.engine.sampling import Sampling
from trainer.evaluation import config as evaluation_config
from trainer.evaluation.evaluate import evaluate
from trainer.losses import kto
from trainer.losses.base import ExampleLoss
from trainer.models.loading import load_base
from trainer.training.step import Budget
from trainer.training.train import train

#: Tokens of a pack, tokens held, and whether layers are checkpointed: one pack held, three packs
#: held, three packs passed twice, and the latter with activation checkpointing.
WAYS = {
    "one": (10_000, 10_000, False),
    "held": (40, 10_000, False),
    "twice": (40, 0, False),
    "checkpointed": (40, 0, True),
}
#: Every loss, and every way of the one that has them all.
STEPS = (
    *(("kto", way) for way in WAYS),
    *((loss, "checkpointed") for loss in ("kto_clamped", "apo_zero_unpaired", "bco", "sft", "dpo")),
)
SAMPLINGS = {
    "greedy": Sampling(max_tokens=8, temperature=0),
    "sampled": Sampling(max_tokens=8, temperature=1.0, top_p=0.9),
    "top_k": Sampling(max_tokens=8, temperature=0.7, top_p=0.9, top_k=20),
    "everything": Sampling(max_tokens=8, temperature=1.5, top_p=1.0),
    "penalised": Sampling(max_tokens=8, repetition_penalty=1.3),
    "scored": Sampling(max_tokens=8, temperature=1.0, top_p=0.5, logprobs=3),
}


@dataclass(frozen=True)
class Found:
    """Results of one scenario: numbers of the device and of the CPU, which should be equal, and
    where the host waited for the device."""

    here: Any = None
    cpu: Any = None
    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    error: str | None = None


class Scenarios:
    def __init__(self, tiny_dir: Path, scratch: Path, machine: Device) -> None:
        self.tiny_dir = tiny_dir
        self.scratch = scratch
        self.machine = machine

    def step(self, loss: str, way: str) -> Found:
        """One training step: loss, rewards and the norm of the gradient."""
        here, waits = self._step(loss, way, NAME)
        cpu, _ = self._step(loss, "one", "cpu")
        return Found(here, cpu, waits.reads, waits.writes)

    def _step(self, loss: str, way: str, where: str) -> tuple[list[float], Any]:
        pack, held, checkpointing = WAYS[way]
        base = load_base(str(self.tiny_dir), dtype="float32", device=where)
        path = self.scratch / f"step-{loss}-{way}-{where}"
        bench = Bench(base, path, loss, Budget(pack, held), checkpointing=checkpointing)
        self.machine.reset()
        result = bench.runner.backward(step_of(loss), beta=0.5, mean_reward=0.3)
        waits = self.machine.reset()
        slopes = bench.masters.gradients()
        assert all(slope.device.type == where for slope in slopes)
        norms = [float(slope.norm()) for slope in slopes]
        return [result.loss, result.z0_unclamped, *result.rewards, *norms], waits

    def run(self, **config: Any) -> Found:
        """A whole run: reference, steps, probes, validation, checkpoints, adapter. Compared with
        the CPU's as it is by default; dropout draws other numbers, float16 rounds otherwise."""
        return Found(self._run(NAME, config), None if config else self._run("cpu", config))

    def _run(self, where: str, config: dict[str, Any]) -> list[float]:
        name = "-".join(map(str, ["run", *config.values(), where]))
        settings = {"probe_every": 2, "token_budget": 60, "epochs": 1, **config}
        settings |= {"device": where, "learning_rate": 1e-3}
        run_dir = write_run(self.scratch / name, self.tiny_dir, **settings)
        write_examples(run_dir / "validation.jsonl", [example(n) for n in range(30, 42)])
        train(run_dir)
        steps = [event["loss"] for event in events(run_dir, "step")]
        probes = [event["validation_loss"] for event in events(run_dir, "probe")]
        return [*steps, *probes]

    def evaluation(self) -> Found:
        """An evaluation of the base and an adapter: answers, then every measure."""
        base = load_base(str(self.tiny_dir), dtype="float32", device="cpu")
        make_tiny_adapter(self.scratch / "evaluated", base, name="starter@1")
        return Found(*(self._evaluation(where) for where in (NAME, "cpu")))

    def _evaluation(self, where: str) -> list[Any]:
        parent = self.scratch / f"evaluation-{where}"
        parent.mkdir()
        adapter = str(self.scratch / "evaluated")
        eval_dir = make_eval(parent, self.tiny_dir, {"starter@1": adapter, "base": None})
        change(eval_dir, device=where, max_tokens=6, answers_per_prompt=1, languages=["en"])
        evaluate(eval_dir)
        report = report_of(eval_dir)
        texts = [each["text"] for item in report["answers"] for each in item["answers"]["base"]]
        kinds = ("kl", "neutral", "sycophancy")
        return [texts, *(value for kind in kinds for value in report[kind]["starter@1"])]

    def engine(self, sampling: str) -> Found:
        """The engine's batch with rows of the base and of two adapters, one of which joins later;
        what is counted is one decoding step."""
        values = [self._engine(where, SAMPLINGS[sampling]) for where in (NAME, "cpu")]
        waits = values[0][1]
        return Found(values[0][0], values[1][0], waits.reads, waits.writes)

    def _engine(self, where: str, how: Sampling) -> tuple[list[list[Any]], Any]:
        base = load_base(str(self.tiny_dir), dtype="float32", device=where)
        decoder = serving_decoder(base.model)
        slots = [0]
        for number in (1, 2):
            directory = self.scratch / f"served-{number}"
            if not directory.exists():
                plain = load_base(str(self.tiny_dir), dtype="float32", device="cpu")
                make_tiny_adapter(directory, plain, seed=number, rank=2 * number)
            _, weights = read_adapter(directory, base, decoder.shapes)
            slots.append(decoder.attach(weights))
        batch = Batch(base.model, decoder, PrefixCache())
        eos = eos_ids(base.model, base.tokenizer)
        texts = ("Bread?", "What is the capital of France? " * 6, "Hello", "And which river?")
        rows = []
        for number, text in enumerate(texts):
            ids = prompt_ids(base.tokenizer, [{"role": "user", "content": text}])
            given = replace(how, seed=number, ignore_eos=True)
            slot = slots[number % 3]
            rows.append(Row.new(ids, given, tokenizer=base.tokenizer, eos=eos, slot=slot))
        batch.join(rows[:3])
        batch.step()
        batch.step()
        self.machine.reset()
        batch.step()
        waits = self.machine.reset()
        batch.join(rows[3:])
        while batch.rows:
            batch.step()
        again = Row.new(
            [*rows[1].prompt, *rows[1].token_ids, 5],
            replace(how, seed=9),
            tokenizer=base.tokenizer,
            eos=eos,
            slot=rows[1].slot,
        )
        batch.join([again])  # reads what the prefix cache holds
        while batch.rows:
            batch.step()
        scores = [[score.token for score in row.scores] for row in rows]
        return [row.token_ids for row in [*rows, again]] + scores, waits

    def forgotten_matrix(self) -> Found:
        """A step with a matrix of the adapter on the CPU: must be refused."""
        bench = self._bench("forgotten-matrix")
        layer = next(iter(bench.lora.layers.values()))
        layer.lora_a = nn.Parameter(layer.lora_a.detach().cpu())
        bench.runner.backward(step_of("kto"), beta=0.5)
        return Found()

    def forgotten_weights(self) -> Found:
        """A step whose loss makes a tensor without naming the device: must be refused."""
        bench = self._bench("forgotten-weights")

        def careless(rewards: Tensor, *given: Any) -> Tensor:
            return kto(rewards, *given) * torch.ones(len(rewards))

        loss = ExampleLoss("careless", careless, anchor="z0")
        replace(bench.runner, loss=loss).backward(step_of("kto"), beta=0.5)
        return Found()

    def _bench(self, name: str) -> Bench:
        base = load_base(str(self.tiny_dir), dtype="float32", device=NAME)
        return Bench(base, self.scratch / name, "kto", Budget(10_000, 10_000))


def attempt(scenario: Callable[[], Found]) -> Found:
    try:
        return scenario()
    except Exception as error:  # reported, so that the other scenarios run
        return Found(error=f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


def main(tiny_dir: Path, scratch: Path, only: str = "") -> None:
    """Run the scenarios whose names begin with `only`."""
    torch.set_num_threads(1)
    for module in (training_config, evaluation_config):
        module.device_fault = lambda name: None  # a configuration may name this device
    with device() as machine:
        given = Scenarios(tiny_dir, scratch, machine)
        scenarios: dict[str, Callable[[], Found]] = {
            **{f"step {loss} {way}": partial(given.step, loss, way) for loss, way in STEPS},
            "run": given.run,
            "run float16": partial(given.run, dtype="float16"),
            "run dropout": partial(given.run, lora_dropout=0.1),
            "evaluation": given.evaluation,
            **{f"engine {how}": partial(given.engine, how) for how in SAMPLINGS},
            "forgotten matrix": given.forgotten_matrix,
            "forgotten weights": given.forgotten_weights,
        }
        found = {}
        for name, scenario in scenarios.items():
            if name.startswith(only):
                found[name] = asdict(attempt(scenario))
                (scratch / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
