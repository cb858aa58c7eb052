"""The servers that are measured, each a separate process with its usual threads."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from tests.engines import answers, free_port, wait_until
from tests.tiny import make_tiny_adapter
from trainer.models.loading import load_base
from trainer.precision import automatic_precision

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "var" / "bench" / "engine"
#: Requirements of `transformers serve` beyond the packages installed here.
SERVE_NEEDS = "fastapi==0.165.0"
ADAPTERS = ("bench@1", "bench@2", "bench@3")


def make_adapters(model: str) -> Path:
    """Create an artifact root with three random adapters of rank 16 on all linear layers."""
    root = WORK / "artifacts"
    if not all((root / "adapters" / name).exists() for name in ADAPTERS):
        base = load_base(model, dtype="bfloat16", device="cpu")
        for number, name in enumerate(ADAPTERS, 1):
            directory = root / "adapters" / name
            make_tiny_adapter(directory, base, name=name, seed=number, rank=16, strength=0.02)
    return root


def environment() -> dict[str, str]:
    """Return an environment with torch's default threads: the Procfile sets none either."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}


@contextmanager
def process(command: list[str], log: Path, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """Run a child until the block ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as written:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stderr=written, text=True, **options
        )
        try:
            yield child
        finally:
            child.terminate()
            child.wait(timeout=30)


@contextmanager
def engine(model: str, artifacts: Path) -> Iterator[str]:
    """Run the embedded engine, as the Procfile starts it, with the first two adapters loaded."""
    url = f"http://127.0.0.1:{free_port()}"
    serve = [sys.executable, "-m", "trainer", "serve", "--model", model]
    serve += ["--artifacts", str(artifacts), "--port", url.rpartition(":")[2]]
    with process(
        [*serve, "--served-model-name", "base"], WORK / "engine.log", stdout=subprocess.DEVNULL
    ):
        wait_until(lambda: answers(f"{url}/health"), what="the engine")
        for name in ADAPTERS[:2]:
            body = {"lora_name": name, "lora_path": f"adapters/{name}"}
            httpx.post(f"{url}/v1/load_lora_adapter", json=body, timeout=60).raise_for_status()
        yield url


class Generate:
    """transformers' generate, loaded once and called several times."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self._child = child
        self.threads = self._read()["threads"]

    def batch(self, *, rows: int, tokens: int, adapter: bool) -> float:
        """Return the tokens per second of one static batch."""
        assert self._child.stdin is not None
        wanted = {"rows": rows, "tokens": tokens, "adapter": adapter}
        self._child.stdin.write(json.dumps(wanted) + "\n")
        self._child.stdin.flush()
        found = self._read()
        return float(found["tokens"] / found["seconds"])

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"generate ended: see {WORK / 'generate.log'}")
        return dict(json.loads(line))


@contextmanager
def generate(model: str, adapter: Path | None = None) -> Iterator[Generate]:
    """With an adapter all its answers use PEFT; without one PEFT is not loaded."""
    command = [sys.executable, "-m", "bench.engine_parts.generate", model]
    command += [str(adapter)] if adapter else []
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with process(command, WORK / "generate.log", **pipes) as child:
        yield Generate(child)


@contextmanager
def transformers_serve(model: str) -> Iterator[str]:
    """Run `transformers serve --continuous-batching` in an environment that extends ours."""
    place = WORK / "serve-peer"
    python = place / "bin" / "python"
    marker = place / SERVE_NEEDS
    if not marker.exists():
        shutil.rmtree(place, ignore_errors=True)
        venv.create(place, with_pip=True)
        (site,) = place.glob("lib/python*/site-packages")
        ours = Path(httpx.__file__).parent.parent
        (site / "ours.pth").write_text(f"{ours}\n")
        install = [str(python), "-m", "pip", "install", "--quiet", SERVE_NEEDS]
        subprocess.run(install, check=True)
        marker.touch()
    url = f"http://127.0.0.1:{free_port()}"
    command = [str(python), "-m", "transformers.cli.transformers", "serve", model]
    dtype = automatic_precision(torch.device("cpu")).name
    options = ["--continuous-batching", "--dtype", dtype, "--device", "cpu"]
    options += ["--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    log = WORK / "serve.log"
    with process([*command, *options], log, stdout=subprocess.DEVNULL) as child:
        ended = lambda: child.poll() is not None  # noqa: E731
        wait_until(lambda: ended() or answers(f"{url}/health"), seconds=120, what="serve")
        if ended():
            raise RuntimeError(f"transformers serve did not start: see {log}")
        yield url
