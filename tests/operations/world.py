"""Rows and files that tests of backup and doctor share."""

import hashlib
import json
from pathlib import Path

from feedback_app.training.models import Adapter, Run


def adapter_write(run: Run, root: Path) -> Adapter:
    """Register an adapter of a few bytes under `root`, with valid hashes and no weights."""
    name = run.project.adapter_name(run.number)
    directory = root / "adapters" / name
    directory.mkdir(parents=True)
    files = {"adapter_model.safetensors": name.encode() * 1000, "adapter_config.json": b"{}"}
    for file, content in files.items():
        (directory / file).write_bytes(content)
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    (directory / "manifest.json").write_text(json.dumps({"name": name, "files": hashes}))
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)
    return Adapter.objects.create(
        project=run.project,
        run=run,
        name=name,
        path=f"adapters/{name}",
        sha256=hashes["adapter_model.safetensors"],
    )
