"""A run directory: what is read from it before the first step, and who may work on it."""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.artifact import MANIFEST, Manifest, fsync, verify_adapter
from trainer.batches import steps_per_epoch
from trainer.chat import eos_ids
from trainer.checkpoint import Fit
from trainer.config import MAX_RANK, TrainConfig
from trainer.errors import BadArtifact, Refused, TrainerError
from trainer.examples import Example, check_trainable, read_examples
from trainer.losses import MAX_LAMBDA, Lambdas, lambdas
from trainer.model import LoadedBase
from trainer.tokenise import Tokenised, TokenisedSet, tokenise_all


@dataclass(frozen=True)
class LoadedRun:
    """Config, base model and examples as token ids; `identity` names config and examples."""

    config: TrainConfig
    base: LoadedBase
    examples: tuple[Tokenised, ...]
    truncated: int
    lambdas: Lambdas
    identity: str
    warnings: tuple[str, ...]

    @property
    def desirable(self) -> int:
        return sum(example.label for example in self.examples)

    @property
    def undesirable(self) -> int:
        return len(self.examples) - self.desirable

    @property
    def total_steps(self) -> int:
        return self.config.epochs * steps_per_epoch(len(self.examples), self.config.batch_size)


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
        check_trainable(examples)
    except Refused as error:
        faults += error.faults
    if faults or config is None or examples is None:
        raise Refused(*faults)
    return config, examples


def load_run(
    config: TrainConfig, examples: Sequence[Example], base: LoadedBase, *, identity: str
) -> LoadedRun:
    """Tokenise the examples and weigh the classes. Raises Refused when what is left after
    tokenisation cannot be trained on."""
    data = tokenise_for(base, examples, max_length=config.max_length)
    left_out = set(data.left_out)
    if left_out:
        check_trainable([example for example in examples if example.id not in left_out])
    desirable = sum(example.label for example in data.examples)
    weights = lambdas(
        desirable, len(data.examples) - desirable, given_d=config.lambda_d, given_u=config.lambda_u
    )
    return LoadedRun(
        config=config,
        base=base,
        examples=data.examples,
        truncated=data.truncated,
        lambdas=weights,
        identity=identity,
        warnings=_warnings(config, data, weights),
    )


def tokenise_for(base: LoadedBase, examples: Sequence[Example], *, max_length: int) -> TokenisedSet:
    """Tokenise examples for a base model, its end-of-turn token included."""
    ends = eos_ids(base.model, base.tokenizer)
    if not ends:
        raise Refused("the base model names no end-of-sequence token: no answer could ever end")
    own = base.tokenizer.eos_token_id
    return tokenise_all(
        examples,
        base.tokenizer,
        eos=own if own in ends else min(ends),
        vocabulary=base.model.get_input_embeddings().num_embeddings,
        max_length=max_length,
    )


def run_identity(run_dir: Path) -> str:
    """A hash of config.json and examples.jsonl: a checkpoint fits only the run it was made for."""
    digest = hashlib.sha256()
    for name in ("config.json", "examples.jsonl"):
        digest.update(hashlib.sha256((run_dir / name).read_bytes()).digest())
    return digest.hexdigest()


def complete_manifest(adapter: Path) -> Manifest | None:
    """The manifest of the run's adapter when it is there and whole. A damaged one is none: it is
    written again from the last checkpoint."""
    if not (adapter / MANIFEST).exists():
        return None
    try:
        return verify_adapter(adapter, base_fingerprint=None, max_rank=MAX_RANK)
    except BadArtifact:
        return None


def write_fit(path: Path, fit: Sequence[Fit]) -> None:
    """fit.jsonl: how the policy stood to each training example in the last epoch."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(asdict(item)) + "\n" for item in fit), encoding="utf-8")
    fsync(partial)
    partial.rename(path)


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: two processes on one run would overwrite each other's
    checkpoints. The lock ends with the process, however that ends. Raises TrainerError when
    another process holds it."""
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainerError(f"another process is at work in {directory}") from None
        yield


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
    if weights.bounded:
        found.append(
            f"the classes are so unequal that λ was held at {MAX_LAMBDA:g}: collect votes of the "
            "rarer kind"
        )
    return tuple(found)
