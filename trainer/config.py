"""Configuration of a training run, validated here once, with all faults reported at once."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from trainer.chats.settings import REASONING, TRAINED, ChatSettings, template_kwargs_fault
from trainer.errors import Refused
from trainer.losses import loss_fault
from trainer.names import is_adapter_name

MAX_RANK = 256
REPORT_TOOLS = ("tensorboard", "mlflow", "wandb")


@dataclass(frozen=True)
class Packs:
    """How much a step computes at a time: the fields of TrainConfig with these names."""

    token_budget: int = 4096
    held_tokens: int = 8192
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """`config.json` of a run directory. The defaults come from the sweep in docs/log.md.

    Lengths are in tokens, `kl_brake` in nats per token, intervals in optimiser steps. None for a λ
    means 'by the rule' (losses.lambdas), None for `kl_brake` and `patience` 'off', None for
    `threads` 'torch's choice'. `sft` knows neither β nor λ, `dpo` no λ. `sft_weight` adds
    the SFT loss of the ups, times this weight, to the preference loss. Whether loss, batch size
    and snapshot fit each other is seen where the examples are known (training/preflight.py).

    `token_budget` bounds the tokens of one forward pass, `held_tokens` those whose activations
    wait until z₀ is known, which saves a second pass over their prompts. Short runs with a
    `kl_brake` are probed more often than `probe_every` (training/early_stopping.py). `patience`
    counts probes in a row with a rising validation loss. `reference_cache` is a directory that
    several runs share; None keeps the cache in the run's own. `dtype` "float16" is for GPUs without
    bfloat16 units and scales the loss (training/loss_scale.py). `quantisation` "4bit" holds the
    base in four bits; `gradient_checkpointing` computes a layer's activations again instead
    of keeping them; `fsdp` spreads the base over the processes that train together
    (trainer/distributed/fsdp.py). None for `token_budget`, `held_tokens` and
    `gradient_checkpointing` means what fits the free memory of a GPU (trainer/planning/packs.py),
    and the default of `packs` elsewhere. `deterministic` makes a GPU repeat a run bit for bit, at
    some cost in speed (trainer/training/determinism.py); on a CPU runs repeat anyway. `compile`
    has torch compile the decoder layers on CUDA, outside of attention
    (trainer/backends/cuda/compiled.py): the first step takes minutes, later ones may be faster.

    `start_adapter` is the directory of an adapter, relative to the run directory or absolute, that
    training continues: the reference is then the base with that adapter, and rewards, z₀ and
    `kl_brake` are measured from there; None starts from the base
    (trainer/training/start_adapter.py). Its rank, α, `use_rslora` and layers must be the run's.
    `use_rslora` scales the adapter by α/√r instead of α/r. `target_modules` are the layers that it
    sits on: "all", "attention" or "mlp". `lora_init` "pissa" starts from the base's largest
    singular values and saves an adapter of rank 2r; `use_dora` learns magnitudes beside it, which
    no engine serves: merge such an adapter (both: trainer/models/peft_lora.py). `experts` adapts
    the routed experts of a mixture as well, beside `target_modules`; no engine serves that either
    (trainer/models/peft_experts.py).

    `chat_template_kwargs` are variables of the base model's chat template, such as enable_thinking.
    `reasoning` "trained" learns what an answer says between marks such as <think> and </think>
    like the rest of it; "read" leaves it between prompt and answer and learns the answer alone.
    `report_to` are tools that get the run's figures (trainer/reports/reports.py).
    """

    base_model: str
    adapter_name: str
    start_adapter: str | None = None
    loss: str = "kto"
    beta: float = 0.5
    beta_schedule: str = "constant"
    learning_rate: float = 2e-4
    batch_size: int = 16
    epochs: int = 2
    lambda_d: float | None = None
    lambda_u: float | None = None
    sft_weight: float = 0.0
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    use_rslora: bool = False
    target_modules: str = "all"
    lora_init: str = "default"
    use_dora: bool = False
    experts: bool = False
    max_length: int = 1024
    warmup_ratio: float = 0.1
    lr_schedule: str = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    kl_brake: float | None = 0.5
    probe_every: int = 10
    token_budget: int | None = None
    held_tokens: int | None = None
    patience: int | None = 3
    reference_cache: str | None = None
    checkpoint_every: int = 10
    dtype: str = "auto"
    quantisation: str | None = None
    gradient_checkpointing: bool | None = None
    fsdp: bool = False
    device: str = "auto"
    threads: int | None = None
    deterministic: bool = False
    compile: bool = False
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str = TRAINED
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = _faults(self)
        if faults:
            raise Refused(*faults)

    @classmethod
    def from_dict(cls, raw: object) -> Self:
        """Build from parsed JSON. Raises Refused with every unknown, missing and bad field."""
        if not isinstance(raw, dict):
            raise Refused("config.json must hold a JSON object")
        known = {each.name: each for each in fields(cls)}
        faults = [f"unknown field {name!r}" for name in raw if name not in known]
        faults += [
            f"{name} is missing" for name in ("base_model", "adapter_name") if name not in raw
        ]
        given = {name: value for name, value in raw.items() if name in known}
        try:
            config = cls(**{"base_model": "?", "adapter_name": "unnamed@1", **given})
        except Refused as error:
            raise Refused(*faults, *error.faults) from None
        if faults:
            raise Refused(*faults)
        return config

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `config.json`. Raises Refused when it is missing, no JSON or faulty."""
        return cls.from_dict(read_json(path))

    @property
    def packs(self) -> "Packs":
        """Return how much is computed at a time, with defaults for what is not given."""
        return Packs(
            Packs.token_budget if self.token_budget is None else self.token_budget,
            Packs.held_tokens if self.held_tokens is None else self.held_tokens,
            self.experts if self.gradient_checkpointing is None else self.gradient_checkpointing,
        )

    @property
    def chat(self) -> ChatSettings:
        """Return how conversations and answers become tokens."""
        return ChatSettings(self.chat_template_kwargs, self.reasoning)

    @property
    def needs_peft(self) -> bool:
        """Return whether only PEFT's layers compute the adapter (trainer/models/peft_lora.py)."""
        return self.use_dora is True or self.experts is True or self.lora_init == "pissa"

    def with_packs(self, packs: "Packs") -> Self:
        """Return the same configuration with these instead of automatic ones."""
        return replace(self, **asdict(packs))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, in the order of the fields."""
        return asdict(self)


def read_json(path: Path) -> object:
    """Parse a JSON file that a run cannot do without. Raises Refused with the reason."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Refused(f"{path.name} is missing in {path.parent}") from None
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path.name} is not valid JSON ({error})") from None


def number_fault(
    name: str,
    value: object,
    *,
    low: float,
    high: float = math.inf,
    whole: bool = False,
    above: bool = False,
) -> str | None:
    """Return what is wrong with a number that must lie in [low, high] (`above`: not at `low`
    itself)."""
    kind = "whole number" if whole else "number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} must be a {kind}, not {value!r}"
    if whole and not isinstance(value, int):
        return f"{name} must be a {kind}, not {value!r}"
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        finite = False
    if not finite:
        return f"{name} must be finite"
    if value < low or value > high or (above and value == low):
        bound = f"above {low:g}" if above else f"at least {low:g}"
        return f"{name} must be {bound}" + ("" if high == math.inf else f" and at most {high:g}")
    return None


def choice_fault(name: str, value: object, choices: tuple[str, ...]) -> str | None:
    """Return what is wrong with a value that must be one of `choices`."""
    if value in choices:
        return None
    return f"{name} must be one of {', '.join(choices)}, not {value!r}"


def quantisation_fault(value: object) -> str | None:
    """Return what is wrong with a quantisation; whether the machine has it is seen when a base is
    loaded (trainer/models/quantisation.py)."""
    if value in (None, "4bit"):
        return None
    return f"quantisation must be 4bit or null, not {value!r}"


def device_fault(device: object) -> str | None:
    """Return what is wrong with a device's name; whether the machine has it is seen when it is
    used."""
    if isinstance(device, str) and device.split(":")[0] in ("auto", "cpu", "cuda", "mps", "xpu"):
        return None
    return f"device must be auto, cpu, cuda or cuda:<n>, not {device!r}"


def _faults(config: TrainConfig) -> list[str]:
    def number(name: str, **bounds: Any) -> str | None:
        return number_fault(name, getattr(config, name), **bounds)

    def optional(name: str, **bounds: Any) -> str | None:
        return None if getattr(config, name) is None else number(name, **bounds)

    checks = [
        None
        if isinstance(config.base_model, str) and config.base_model.strip()
        else "base_model must name a directory or a hub id",
        None
        if isinstance(config.adapter_name, str) and is_adapter_name(config.adapter_name)
        else f"adapter_name must read <project>@<n>, not {config.adapter_name!r}",
        None
        if config.start_adapter is None
        or (isinstance(config.start_adapter, str) and config.start_adapter.strip())
        else "start_adapter must name a directory or be null",
        loss_fault(config.loss),
        number("beta", low=0, high=100, above=True),
        choice_fault("beta_schedule", config.beta_schedule, ("constant", "linear_warmup")),
        number("learning_rate", low=0, high=1, above=True),
        number("batch_size", low=1, high=100_000, whole=True),
        number("epochs", low=1, high=1000, whole=True),
        optional("lambda_d", low=0, high=1000, above=True),
        optional("lambda_u", low=0, high=1000, above=True),
        number("sft_weight", low=0, high=1),
        "sft_weight adds to a preference loss, and loss sft has none: leave it out"
        if config.loss == "sft" and config.sft_weight
        else None,
        number("lora_r", low=1, high=MAX_RANK, whole=True),
        number("lora_alpha", low=1, high=4096, whole=True),
        number("lora_dropout", low=0, high=0.9),
        None if isinstance(config.use_rslora, bool) else "use_rslora must be true or false",
        choice_fault("target_modules", config.target_modules, ("all", "attention", "mlp")),
        choice_fault("lora_init", config.lora_init, ("default", "pissa")),
        None if isinstance(config.use_dora, bool) else "use_dora must be true or false",
        None if isinstance(config.experts, bool) else "experts must be true or false",
        *_variant_faults(config),
        number("max_length", low=8, high=1_000_000, whole=True),
        number("warmup_ratio", low=0, high=1),
        choice_fault("lr_schedule", config.lr_schedule, ("constant", "linear", "cosine")),
        number("weight_decay", low=0, high=1),
        number("max_grad_norm", low=0, above=True),
        number("seed", low=0, high=2**31 - 1, whole=True),
        optional("kl_brake", low=0, above=True),
        number("probe_every", low=1, whole=True),
        optional("token_budget", low=1, whole=True),
        optional("held_tokens", low=0, whole=True),
        optional("patience", low=1, whole=True),
        None
        if config.reference_cache is None or isinstance(config.reference_cache, str)
        else "reference_cache must name a directory",
        number("checkpoint_every", low=1, whole=True),
        choice_fault("dtype", config.dtype, ("auto", "float32", "bfloat16", "float16")),
        quantisation_fault(config.quantisation),
        None
        if config.gradient_checkpointing is None or isinstance(config.gradient_checkpointing, bool)
        else "gradient_checkpointing must be true, false or null",
        None if isinstance(config.fsdp, bool) else "fsdp must be true or false",
        "fsdp cannot spread a base that quantisation holds in four bits: leave one of them out"
        if config.fsdp is True and config.quantisation is not None
        else None,
        device_fault(config.device),
        None if isinstance(config.deterministic, bool) else "deterministic must be true or false",
        None if isinstance(config.compile, bool) else "compile must be true or false",
        "compile was not tried on a base that fsdp spreads or quantisation packs: leave one out"
        if config.compile is True and (config.fsdp is True or config.quantisation is not None)
        else None,
        optional("threads", low=1, high=4096, whole=True),
        template_kwargs_fault(config.chat_template_kwargs),
        choice_fault("reasoning", config.reasoning, REASONING),
        None
        if isinstance(config.report_to, list | tuple)
        and all(tool in REPORT_TOOLS for tool in config.report_to)
        else f"report_to must be a list of {', '.join(REPORT_TOOLS)}",
    ]
    return [fault for fault in checks if fault is not None]


def _variant_faults(config: TrainConfig) -> list[str]:
    """Return which settings exclude the variant of the adapter that is asked for."""
    faults = []
    if config.lora_init == "pissa":
        if config.quantisation is not None:
            faults.append(
                "lora_init pissa takes a part out of the base's weights, which quantisation holds "
                "packed: leave one of them out"
            )
        if config.start_adapter is not None:
            faults.append("lora_init pissa cannot start from start_adapter: leave one of them out")
        if config.use_dora is True:
            faults.append("lora_init pissa and use_dora exclude each other: leave one of them out")
        if isinstance(config.lora_r, int) and config.lora_r > MAX_RANK // 2:
            faults.append(
                f"lora_r must be at most {MAX_RANK // 2} with lora_init pissa, which saves an "
                "adapter of twice that rank"
            )
    if config.use_dora is True and config.start_adapter is not None:
        faults.append("use_dora cannot start from start_adapter: leave one of them out")
    if config.needs_peft and config.fsdp is True:
        faults.append(
            "fsdp spreads no weights that lora_init pissa, use_dora or experts read: leave it out"
        )
    return faults + (_expert_faults(config) if config.experts is True else [])


def _expert_faults(config: TrainConfig) -> list[str]:
    """Return which settings exclude adapters of routed experts."""
    excluded = {
        "use_dora, which has no magnitudes of experts": config.use_dora is True,
        "lora_init pissa": config.lora_init == "pissa",
        "lora_dropout, which cannot reach what is added to a weight": bool(config.lora_dropout),
        "quantisation, which holds experts packed": config.quantisation is not None,
        "start_adapter": config.start_adapter is not None,
        "gradient_checkpointing false: every layer would keep a second copy of its experts": (
            config.gradient_checkpointing is False
        ),
    }
    return [
        f"experts excludes {what}: leave one of them out" for what, set_ in excluded.items() if set_
    ]
