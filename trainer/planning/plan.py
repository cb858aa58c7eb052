"""`python -m trainer plan`: what a run would train on, how long it would take, and the memory it
would need here and on devices of other kinds and numbers. Nothing is loaded."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from trainer.backends import backend_for
from trainer.chats.settings import READ
from trainer.config import TrainConfig, read_json
from trainer.data.batches import Sampler, Step
from trainer.data.examples import Example, read_examples
from trainer.data.tokenise import Tokenised, tokenise
from trainer.errors import Refused, TrainerError
from trainer.losses import class_weights, loss_named, summed_weights
from trainer.models.architecture import Architecture
from trainer.models.loading import resolve_device
from trainer.models.quantisation import FOUR_BIT
from trainer.models.template_check import template_check
from trainer.planning.memory import Memory, Setup, estimate
from trainer.planning.packs import checkpointing_choices, free_memory, packs_here
from trainer.planning.peak_memory import peak_load
from trainer.precision import resolve_precision
from trainer.training.preflight import check_trainable
from trainer.training.run_directory import read_run

# Forward passes' worth of work for a token: gradient step 2 (the base is frozen), z₀'s policy and
# reference half a pass each (prompts are shared); the reference of the example itself once a run.
_PASSES_PER_EPOCH = 3.0
_PASSES_ONCE = 1.0
# Share of the matrix-multiplication speed below that a step reaches: the rest is attention,
# adapters and the head. Measured; bench/plan.py measures it again.
EFFICIENCY = 0.6
START_SECONDS = 5.0
# Numbers of devices for which memory is estimated.
DEVICES = (1, 2, 4, 8)


def plan(run_dir: Path) -> dict[str, Any]:
    """Return what the run in `run_dir` would take: see plan_of.

    Raises Refused exactly where `train` would refuse before loading the model.
    """
    return plan_of(*read_run(run_dir))


def plan_model(model: str, examples: Path, config: Path | None = None) -> dict[str, Any]:
    """Return the same for a base model (directory or hub id), a file of examples and settings that
    differ from the defaults. Raises Refused with the faults of both files."""
    given = {} if config is None else read_json(config)
    if not isinstance(given, dict):
        raise Refused(f"{config} must hold a JSON object")
    settings = TrainConfig.from_dict({"adapter_name": "plan@1", **given, "base_model": model})
    found = read_examples(examples)
    check_trainable(loss_named(settings.loss), found, settings)
    return plan_of(settings, found)


def plan_of(config: TrainConfig, examples: Sequence[Example]) -> dict[str, Any]:
    """Return counts, summed weights and λ of the classes, steps, tokens of one epoch, estimated
    seconds, and bytes of memory: `memory` on the device of the config, `devices` on 1 to 8 CUDA
    devices (see `setups`)."""
    loss = loss_named(config.loss)
    desirable = sum(example.label for example in examples)
    sums = summed_weights(examples)
    weights = class_weights(
        loss,
        *sums,
        given_d=config.lambda_d,
        given_u=config.lambda_u,
    )
    used = [example for example in examples if example.label or not loss.ups_only]
    tokenised = tokenised_of(config, used)
    sampler = Sampler(
        tokenised,
        batch_size=config.batch_size,
        seed=config.seed,
        unit=loss.unit,
        mismatched=False,
    )
    architecture = architecture_of(config.base_model)
    tokens = sum(example.length for example in tokenised)
    passes = config.epochs * _PASSES_PER_EPOCH + _PASSES_ONCE
    operations = 2.0 * architecture.active * tokens * passes
    seconds = START_SECONDS + operations / (_operations_per_second(config) * EFFICIENCY)
    device = resolve_device(config.device)
    precision = resolve_precision(config.dtype, device)
    chosen, reason = packs_here(config, free_memory(device))
    here = Setup(
        config.lora_r,
        precision.dtype,
        device.type,
        quantisation=config.quantisation,
        checkpointing=chosen.gradient_checkpointing,
        experts=config.experts,
    )
    steps = sampler.steps(0)
    return {
        "examples": len(examples),
        "desirable": desirable,
        "undesirable": len(examples) - desirable,
        "weight_d": sums[0],
        "weight_u": sums[1],
        "lambda_d": weights.desirable,
        "lambda_u": weights.undesirable,
        "steps": config.epochs * sampler.steps_per_epoch(),
        "tokens": tokens,
        "estimated_seconds": round(seconds),
        "device": f"{device.type}, {precision.name}",
        "precision": str(precision),
        "adapter": _adapter_label(config, device),
        "packs": {**asdict(chosen), "reason": reason},
        "memory": _memory(config.with_packs(chosen), architecture, tokenised, steps, here).parts(),
        "devices": [
            {
                "devices": setup.devices,
                "base": _base_label(setup),
                "memory": _memory(config, architecture, tokenised, steps, setup).parts(),
            }
            for setup in setups(config, architecture)
        ],
    }


def setups(config: TrainConfig, architecture: Architecture) -> Iterator[Setup]:
    """CUDA devices, base in bfloat16 and in 4 bits: one, several with a copy each (DDP), several
    with a share each (FSDP); without those that the configuration would refuse."""
    checkpointing = checkpointing_choices(config, architecture)[0]
    for quantisation in (None,) if config.experts else (None, FOUR_BIT):
        one = Setup(
            config.lora_r,
            quantisation=quantisation,
            checkpointing=checkpointing,
            experts=config.experts,
        )
        for devices in DEVICES:
            yield replace(one, devices=devices)
        if quantisation is None and not config.needs_peft:
            for devices in DEVICES[1:]:
                yield replace(one, devices=devices, sharded=True)


def as_text(found: Mapping[str, Any]) -> str:
    """Return a plan as text: what it trains on, then a row of GiB for each way to run it."""
    rows = [(f"here ({found['device']})", found["memory"])]
    rows += [(f"{row['devices']} × CUDA, {row['base']}", row["memory"]) for row in found["devices"]]
    names = list(found["memory"])
    lines = [
        f"{found['examples']} examples ({found['desirable']} up, {found['undesirable']} down), "
        f"{found['tokens']:,} tokens an epoch, {found['steps']} steps, about "
        f"{found['estimated_seconds']} s here.",
        f"λ is {found['lambda_d']:.2f} for ups and {found['lambda_u']:.2f} for downs (summed "
        f"weights {found['weight_d']:.4g} and {found['weight_u']:.4g}).",
        f"Precision here: {found['precision']}.",
        f"Adapter here: {found['adapter']}.",
        f"At a time here: {found['packs']['reason']}.",
        "",
        "Memory of one device, GiB:",
        "",
        f"{'':46}" + "".join(f"{name:>12}" for name in names),
    ]
    lines += [
        f"{title:46}" + "".join(f"{memory[name] / 2**30:12.2f}" for name in names)
        for title, memory in rows
    ]
    return "\n".join(lines)


def _adapter_label(config: TrainConfig, device: torch.device) -> str:
    """Return what is trained, on which layers, and whose code computes it here."""
    kind = "DoRA" if config.use_dora else "PiSSA" if config.lora_init == "pissa" else "LoRA"
    rank = f"rank {config.lora_r}"
    if config.lora_init == "pissa":
        rank += f", saved with rank {2 * config.lora_r}"
    layers = {"all": "all layers", "attention": "the attention", "mlp": "the MLPs"}
    peft = config.needs_peft or backend_for(device).peft_layers
    code = "PEFT's layers" if peft else "layers of our own"
    served = "; no engine serves it: merge it" if config.use_dora or config.experts else ""
    where = layers[config.target_modules] + (" and the routed experts" if config.experts else "")
    return f"{kind} of {rank} on {where}, in {code}{served}"


def _base_label(setup: Setup) -> str:
    kind = "4-bit" if setup.quantisation == FOUR_BIT else "bfloat16"
    if setup.devices == 1:
        return kind
    return f"{kind}, {'a share each (FSDP)' if setup.sharded else 'a copy each (DDP)'}"


def _memory(
    config: TrainConfig,
    architecture: Architecture,
    examples: Sequence[Tokenised],
    steps: Sequence[Step],
    setup: Setup,
) -> Memory:
    waits = loss_named(config.loss).anchor == "z0" and config.lora_dropout == 0
    load = peak_load(
        examples,
        steps,
        token_budget=config.packs.token_budget,
        held_tokens=config.packs.held_tokens if waits else 0,
        devices=setup.devices,
        sharded=setup.sharded,
    )
    return estimate(architecture, load, setup)


def tokenised_of(config: TrainConfig, examples: Sequence[Example]) -> list[Tokenised]:
    """Return the examples that fit, as token ids; served ids need no tokeniser."""
    tokenizer = None
    served = all(_is_served(example, config.max_length) for example in examples)
    if not served or config.reasoning == READ:
        try:
            tokenizer = AutoTokenizer.from_pretrained(config.base_model)
            template_check(tokenizer)
        except (OSError, ValueError) as error:
            raise TrainerError(
                f"the tokeniser of {config.base_model} does not load: {error}"
            ) from error
    found = [
        tokenise(example, tokenizer, eos=0, max_length=config.max_length, chat=config.chat)
        for example in examples
    ]
    return [item for item in found if item is not None and item.completion]


def _is_served(example: Example, max_length: int) -> bool:
    if not example.prompt_token_ids or not example.completion_token_ids:
        return False
    return len(example.prompt_token_ids) + len(example.completion_token_ids) <= max_length


def architecture_of(base_model: str) -> Architecture:
    """Return what of a base model decides about memory. Raises TrainerError."""
    try:
        return Architecture.of(AutoConfig.from_pretrained(base_model))
    except (OSError, ValueError) as error:
        raise TrainerError(f"the base model {base_model} does not load: {error}") from error


def _operations_per_second(config: TrainConfig) -> float:
    """Return the speed of a matrix product of the usual size on the device and type of the run."""
    device = resolve_device(config.device)
    dtype = resolve_precision(config.dtype, device).dtype
    left = torch.ones(512, 1024, device=device, dtype=dtype)
    right = torch.ones(1024, 1024, device=device, dtype=dtype)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(4):
            (left @ right)[0, 0].item()  # reading a value waits for the device
        times.append(time.perf_counter() - started)
    return 4 * 2.0 * 512 * 1024 * 1024 / min(times)
