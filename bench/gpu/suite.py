"""The tests of tests/gpu in a bare pytest: the suite's plugins and Django are not needed."""

import os
import subprocess
import sys
from typing import Any

from bench.gpu.models import ROOT
from bench.gpu.parts import Job

_PYTEST = ("-m", "pytest", "-c", os.devnull, "--rootdir", str(ROOT), "--confcutdir", "tests/gpu")


def measure(job: Job) -> dict[str, Any]:
    """Return pytest's last line. Raises SystemExit with it where a test failed."""
    log = job.directory / "pytest.txt"
    job.directory.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        code = subprocess.run(
            [sys.executable, *_PYTEST, "-p", "no:cacheprovider", "-v", "tests/gpu"],
            cwd=ROOT,
            env={**os.environ, "PROSPECT_TEST_DEVICE": job.device},
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip("= ") if lines else "pytest printed nothing"
    if code:
        raise SystemExit(f"{last} (in {log})")
    return {"notes": last}
