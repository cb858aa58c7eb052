"""Which backend is chosen, what is imported for it, and that the reference suffices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import MakeRun, events, needs_compiled
from trainer.backends import VARIABLE, backend_for
from trainer.errors import Refused

ROOT = Path(__file__).resolve().parents[3]
MODULES = (
    "trainer",
    "trainer.training.train",
    "trainer.engine.http.server",
    "trainer.evaluation.evaluate",
)
#: Import the modules one by one; print for each which compilers are loaded.
IMPORT = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    print(f"{module}:", *{"numba", "llvmlite"} & set(sys.modules))
"""
#: Make numba impossible to import, as where the extra `cpu` is not installed.
WITHOUT_NUMBA = "import sys; sys.modules.update(numba=None, llvmlite=None)\n"
TRAIN = """
import sys
from pathlib import Path
from trainer.training.train import train
train(Path(sys.argv[1]))
"""
SERVE = """
import asyncio, json, sys
from pathlib import Path
import httpx
from trainer.engine.http.server import create_app
from trainer.engine.loading import load_served
from trainer.engine.scheduler import Scheduler

def make():
    return Scheduler(load_served(sys.argv[1], device="cpu"), Path(sys.argv[2]), name="tiny")

def fail(error):
    raise error

async def main():
    app = create_app("tiny", make, on_failure=fail)
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1"
        ) as client:
            while (await client.get("/health")).status_code == 503:
                await asyncio.sleep(0.05)
            body = {
                "model": "tiny", "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]
            }
            found = await client.post("/v1/chat/completions", json=body, timeout=None)
            print("ANSWER", json.dumps(found.json()))

asyncio.run(main())
"""


def run(code: str, *arguments: str, **env: str) -> str:
    """Run Python code in a new interpreter; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["CUDA", pytest.param("forced", marks=pytest.mark.long)])
def test_importing_loads_no_compiler(machine: str) -> None:
    if machine == "CUDA":
        env, before = {VARIABLE: ""}, "import torch; torch.cuda.is_available = lambda: True\n"
    else:
        env, before = {VARIABLE: "torch_reference"}, ""
    # one process for all modules, as importing torch takes seconds
    out = run(before + IMPORT, *MODULES, **env)
    assert out.split() == [f"{module}:" for module in MODULES]


def test_a_cuda_device_takes_the_cuda_backend_and_others_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert backend_for("cuda").name == "cuda"
    assert backend_for(torch.device("cuda", 1)).name == "cuda"
    assert backend_for("xpu").name == "torch_reference"
    monkeypatch.setenv(VARIABLE, "torch_reference")
    assert backend_for("cuda").name == "torch_reference"


@needs_compiled
def test_a_cpu_takes_compiled_code_unless_the_reference_is_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert backend_for("cpu").name == "cpu"
    monkeypatch.setenv(VARIABLE, "torch_reference")
    assert backend_for("cpu").name == "torch_reference"
    monkeypatch.setenv(VARIABLE, "cuda")
    assert backend_for("cpu").name == "cuda"


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(
        Refused, match=r"PROSPECT_BACKEND is 'fast': use 'torch_reference' or 'cuda', or"
    ):
        backend_for("cpu")


@pytest.mark.long
def test_a_run_is_trained_without_numba(make_run: MakeRun) -> None:
    run_dir = make_run()
    run(WITHOUT_NUMBA + TRAIN, str(run_dir), **{VARIABLE: ""})
    assert events(run_dir, "done")
    assert (run_dir / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.long
def test_a_request_is_served_without_numba(tiny_dir: Path, tmp_path: Path) -> None:
    out = run(WITHOUT_NUMBA + SERVE, str(tiny_dir), str(tmp_path), **{VARIABLE: ""})
    (line,) = [line for line in out.splitlines() if line.startswith("ANSWER ")]
    answer = json.loads(line.removeprefix("ANSWER "))
    assert answer["usage"]["completion_tokens"] > 0
