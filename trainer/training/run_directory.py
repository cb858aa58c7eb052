"""A run directory: its files, and what is loaded from them before the first step."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.artifacts.adapter_directory import MANIFEST, Manifest, fsync, verify_adapter
from trainer.config import MAX_RANK, TrainConfig
from trainer.data.batches import Sampler, Step
from trainer.data.examples import Example, read_examples
from trainer.data.tokenise import Tokenised, TokenisedSet, tokenise_for
from trainer.errors import BadArtifact, Refused
from trainer.losses import MAX_LAMBDA, Lambdas, class_weights, loss_named, summed_weights
from trainer.models.loading import LoadedBase
from trainer.training.checkpoint import Fit
from trainer.training.preflight import check_trainable
from trainer.training.start_adapter import StartAdapter, start_faults

#: With fewer validation examples their loss is too noisy, with more it costs too much time.
_LEAST_VALIDATION, _MOST_VALIDATION = 8, 64


@dataclass(frozen=True)
class LoadedRun:
    """Config, base model and examples as token ids; `identity` names config and examples,
    `packs` says how much is computed at a time and why, `start` is the adapter that training starts
    from."""

    config: TrainConfig
    base: LoadedBase
    examples: tuple[Tokenised, ...]
    validation: tuple[Tokenised, ...]
    truncated: int
    tokens_cut: int
    lambdas: Lambdas
    identity: str
    warnings: tuple[str, ...]
    packs: str = ""
    start: StartAdapter | None = None

    @property
    def desirable(self) -> int:
        return sum(example.label for example in self.examples)

    @property
    def undesirable(self) -> int:
        return len(self.examples) - self.desirable

    @property
    def sampler(self) -> Sampler:
        """Return the sampler of the run's steps, by the needs of the loss."""
        return _sampler(self.config, self.examples, self.config.batch_size)

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.sampler.steps_per_epoch()

    @property
    def validation_step(self) -> Step | None:
        """Return the validation examples as one step, always the same; None where they are too few
        to choose an adapter by (eight, of both kinds where the loss knows both, under two
        prompts)."""
        few = len(self.validation) < _LEAST_VALIDATION
        labels = {example.label for example in self.validation}
        kinds = 1 if loss_named(self.config.loss).ups_only else 2
        prompts = {example.prompt_key for example in self.validation}
        if few or len(labels) < kinds or len(prompts) < 2:
            return None
        sampler = _sampler(self.config, self.validation, 2 * len(self.validation))
        return sampler.steps(0)[0] if sampler.steps_per_epoch() else None


def read_run(run_dir: Path) -> tuple[TrainConfig, list[Example]]:
    """Read and check config.json and examples.jsonl. Raises Refused with the faults of both."""
    faults: list[str] = []
    config, examples = None, None
    try:
        config = TrainConfig.read(run_dir / "config.json")
    except Refused as error:
        faults += error.faults
    try:
        examples = read_examples(run_dir / "examples.jsonl")
        # a faulty config hides no fault of the examples: they are held against the defaults
        assumed = config or TrainConfig(base_model="?", adapter_name="unnamed@1")
        check_trainable(loss_named(assumed.loss), examples, assumed)
    except Refused as error:
        faults += error.faults
    if config is not None:
        faults += start_faults(run_dir, config)
    if faults or config is None or examples is None:
        raise Refused(*faults)
    return config, examples


def read_validation(run_dir: Path) -> list[Example]:
    """Return the examples of validation.jsonl, by which the best adapter of the run is chosen; none
    where there is no such file. Of many, some that are spread evenly. Raises Refused.

    The test examples are in no file of the run directory: what chooses the adapter must not judge
    it as well.
    """
    path = run_dir / "validation.jsonl"
    found = read_examples(path) if path.exists() else []
    count = min(len(found), _MOST_VALIDATION)
    return [found[len(found) * number // count] for number in range(count)]


def load_run(
    config: TrainConfig,
    examples: Sequence[Example],
    base: LoadedBase,
    *,
    identity: str,
    validation: Sequence[Example] = (),
    start: StartAdapter | None = None,
) -> LoadedRun:
    """Tokenise the examples and weigh the classes. Raises Refused when what is left after
    tokenisation cannot be trained on."""
    loss = loss_named(config.loss)
    if loss.ups_only:
        examples = [example for example in examples if example.label]
        validation = [example for example in validation if example.label]
    data = tokenise_for(base, examples, max_length=config.max_length, chat=config.chat)
    left_out = {*data.left_out, *data.unanswered}
    if left_out:
        kept = [example for example in examples if example.id not in left_out]
        check_trainable(loss, kept, config)
    weights = class_weights(
        loss,
        *summed_weights(data.examples),
        given_d=config.lambda_d,
        given_u=config.lambda_u,
    )
    return LoadedRun(
        config=config,
        base=base,
        examples=data.examples,
        validation=tokenise_for(
            base, validation, max_length=config.max_length, chat=config.chat
        ).examples,
        truncated=data.truncated,
        tokens_cut=data.tokens_cut,
        lambdas=weights,
        identity=identity,
        warnings=_warnings(config, data, weights),
        start=start,
    )


def run_identity(run_dir: Path, start: StartAdapter | None = None) -> str:
    """Return a hash of the files a run reads, and of the adapter it starts from: a checkpoint fits
    only the run it was made for."""
    digest = hashlib.sha256()
    for name in ("config.json", "examples.jsonl", "validation.jsonl"):
        path = run_dir / name
        content = path.read_bytes() if path.exists() else b""
        digest.update(hashlib.sha256(content).digest())
    if start is not None:
        digest.update(start.identity.encode())
    return digest.hexdigest()


def complete_manifest(adapter: Path) -> Manifest | None:
    """Return the manifest of the run's adapter when it is there and whole. A damaged one is none:
    it is written again from the last checkpoint."""
    if not (adapter / MANIFEST).exists():
        return None
    try:
        return verify_adapter(
            adapter, base_fingerprint=None, max_rank=MAX_RANK, dora=True, experts=True
        )
    except BadArtifact:
        return None


def write_fit(path: Path, fit: Sequence[Fit]) -> None:
    """fit.jsonl: how the policy stood to each training example in the last epoch."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(asdict(item)) + "\n" for item in fit), encoding="utf-8")
    fsync(partial)
    partial.rename(path)


def _sampler(config: TrainConfig, examples: Sequence[Tokenised], batch_size: int) -> Sampler:
    loss = loss_named(config.loss)
    return Sampler(
        examples,
        batch_size=batch_size,
        seed=config.seed,
        unit=loss.unit,
        mismatched=loss.anchor == "z0",
    )


def _warnings(config: TrainConfig, data: TokenisedSet, weights: Lambdas) -> tuple[str, ...]:
    found = []
    if data.truncated:
        found.append(
            f"{data.truncated} prompt(s) lost their oldest turns to fit {config.max_length} tokens"
        )
    if data.left_out:
        found.append(
            f"{len(data.left_out)} example(s) are left out: last turn and completion are longer "
            f"than {config.max_length} tokens"
        )
    if data.unanswered:
        found.append(
            f"{len(data.unanswered)} example(s) are left out: they end within their reasoning, "
            "which is not trained on"
        )
    if weights.bounded:
        found.append(
            f"the summed weights of the classes are so unequal that λ was held at {MAX_LAMBDA:g}: "
            "collect votes of the rarer kind"
        )
    return tuple(found)
