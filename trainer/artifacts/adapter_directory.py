"""The adapter directory: written whole or not at all, never loaded unchecked.

    adapter_model.safetensors   LoRA matrices under PEFT's names
    adapter_config.json         PEFT's LoraConfig
    README.md                   model card
    manifest.json               who it is, what it was trained on, a SHA-256 of each other file

An adapter may come from an untrusted source: nothing in it is unpickled, followed out of the
directory, or trusted before `verify_adapter` has looked at every file.
"""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from trainer.artifacts.adapter_checks import Shapes, config_faults, tensor_faults
from trainer.errors import BadArtifact
from trainer.names import is_adapter_name

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
MANIFEST = "manifest.json"
FORMAT = 1

_REQUIRED = (WEIGHTS, CONFIG, CARD)
_PLAIN_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PICKLES = {".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
_MAX_JSON_BYTES = 1_000_000


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`. `files` maps each other file's name to its SHA-256 (hex)."""

    name: str
    base_model: str
    base_sha256: str
    rank: int
    files: Mapping[str, str]
    created: str
    train: Mapping[str, Any]
    format: int = FORMAT

    @property
    def sha256(self) -> str:
        """Return the adapter's identity: the hash of its weights."""
        return self.files[WEIGHTS]


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_adapter(
    destination: Path,
    *,
    name: str,
    tensors: Mapping[str, Tensor],
    adapter_config: Mapping[str, Any],
    base_model: str,
    base_sha256: str,
    rank: int,
    created: str,
    train: Mapping[str, Any],
    card: str,
) -> Manifest:
    """Write the adapter to a sibling directory, force it to disk, then rename it into place.

    `destination` is complete whenever it exists, also after a power cut. An older directory there
    is replaced: it can only be the leftover of the same run. Raises OSError (disk full, read-only).
    """
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(contiguous, partial / WEIGHTS, metadata={"format": "pt"})
        _write_json(partial / CONFIG, adapter_config)
        (partial / CARD).write_text(card, encoding="utf-8")
        manifest = Manifest(
            name=name,
            base_model=base_model,
            base_sha256=base_sha256,
            rank=rank,
            files={file: file_sha256(partial / file) for file in _REQUIRED},
            created=created,
            train=train,
        )
        _write_json(partial / MANIFEST, asdict(manifest))
        for file in (*_REQUIRED, MANIFEST):
            fsync(partial / file)
        fsync(partial)
        shutil.rmtree(destination, ignore_errors=True)
        partial.rename(destination)
        fsync(destination.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def fsync(path: Path) -> None:
    """Force a file's bytes, or a directory's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify_adapter(
    path: Path,
    *,
    base_fingerprint: str | None,
    max_rank: int,
    shapes: Shapes | None = None,
    name: str | None = None,
    dora: bool = False,
    experts: bool = False,
) -> Manifest:
    """Check every file of an adapter directory and return its manifest.

    Held are: the kind of each file, its SHA-256, PEFT's settings, rank, types and finite values of
    all matrices; `base_fingerprint`, the loaded base's; `shapes`, (out, in) of the base's linear
    layers; and the `name` it must bear. None skips one of the last three. `dora` allows DoRA,
    `experts` adapters of routed experts: both are merged and not served. Raises BadArtifact with
    all faults found, not only the first.
    """
    path = Path(path)
    if path.is_symlink() or not path.is_dir():
        raise BadArtifact("it is no directory of its own (missing, a file or a symlink)", path=path)
    faults = _directory_faults(path)
    if faults:
        # Opening what may be a symlink or a device is how a check becomes the attack.
        raise BadArtifact(*faults, path=path)

    manifest, faults = _read_manifest(path)
    if manifest is not None:
        faults += _file_faults(path, manifest)
        if base_fingerprint is not None and manifest.base_sha256 != base_fingerprint:
            faults.append(
                f"it was trained on another base model ({manifest.base_model}, "
                f"{manifest.base_sha256[:12]}), not on the loaded base "
                f"({base_fingerprint[:12]})"
            )
        if name is not None and manifest.name != name:
            faults.append(f"it is {manifest.name}, not {name}: names belong to one adapter")
    rank = None
    settings, settings_faults = _read_json(path / CONFIG)
    faults += settings_faults
    if settings is not None:
        dora = dora and bool(settings.get("use_dora"))
        experts = experts and bool(settings.get("target_parameters"))
        rank, settings_faults = config_faults(
            settings, max_rank=max_rank, dora=dora, experts=experts
        )
        faults += [f"{CONFIG}: {fault}" for fault in settings_faults]
    if manifest is not None and rank is not None and manifest.rank != rank:
        faults.append(f"manifest.json says rank {manifest.rank}, {CONFIG} says {rank}")
    faults += tensor_faults(path / WEIGHTS, rank=rank, shapes=shapes, dora=dora, experts=experts)
    if faults or manifest is None:
        raise BadArtifact(*faults, path=path)
    return manifest


def _directory_faults(path: Path) -> list[str]:
    faults = []
    present = set()
    for entry in sorted(path.iterdir()):
        present.add(entry.name)
        mode = entry.lstat().st_mode
        if stat.S_ISLNK(mode):
            faults.append(f"{entry.name} is a symlink")
        elif not stat.S_ISREG(mode):
            faults.append(f"{entry.name} is not a regular file")
        elif entry.suffix.lower() in _PICKLES:
            faults.append(f"{entry.name} may hold a pickle; only safetensors are read")
    faults += [f"{file} is missing" for file in (*_REQUIRED, MANIFEST) if file not in present]
    return faults


def _read_manifest(path: Path) -> tuple[Manifest | None, list[str]]:
    raw, faults = _read_json(path / MANIFEST)
    if raw is None:
        return None, faults
    wanted = {
        "format": int,
        "name": str,
        "base_model": str,
        "base_sha256": str,
        "rank": int,
        "files": dict,
        "created": str,
        "train": dict,
    }
    faults += [f"{MANIFEST} lacks {key}" for key in wanted if key not in raw]
    faults += [f"{MANIFEST} has an unknown field {key!r}" for key in raw if key not in wanted]
    faults += [
        f"{MANIFEST}: {key} must be {kind.__name__}"
        for key, kind in wanted.items()
        if key in raw and (not isinstance(raw[key], kind) or isinstance(raw[key], bool))
    ]
    if faults:
        return None, faults
    if raw["format"] != FORMAT:
        faults.append(f"{MANIFEST} has format {raw['format']}; this version reads {FORMAT}")
    if not is_adapter_name(raw["name"]):
        faults.append(f"name {raw['name']!r} is not of the form <project>@<n>")
    return Manifest(**raw), faults


def _file_faults(path: Path, manifest: Manifest) -> list[str]:
    faults = []
    for name, digest in manifest.files.items():
        if _PLAIN_FILE.fullmatch(name) is None or ".." in name:
            faults.append(f"{MANIFEST} names {name!r}, which is not a plain file name")
        elif not isinstance(digest, str) or _SHA256.fullmatch(digest) is None:
            faults.append(f"{MANIFEST} has no SHA-256 for {name}")
        elif not (path / name).is_file():
            faults.append(f"{MANIFEST} names {name}, which is missing")
        elif file_sha256(path / name) != digest:
            faults.append(f"{name} is not the file that was written: its SHA-256 differs")
    faults += [
        f"{MANIFEST} has no hash of {name}" for name in _REQUIRED if name not in manifest.files
    ]
    listed = {MANIFEST, *manifest.files}
    faults += [
        f"{entry.name} is not listed in {MANIFEST}"
        for entry in sorted(path.iterdir())
        if entry.name not in listed
    ]
    return faults


def _read_json(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    if path.stat().st_size > _MAX_JSON_BYTES:
        return None, [f"{path.name} is larger than {_MAX_JSON_BYTES:,} bytes"]
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return None, [f"{path.name} is not valid JSON ({error})"]
    if not isinstance(raw, dict):
        return None, [f"{path.name} must hold a JSON object"]
    return raw, []


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
