"""The short form of the soak: three minutes of faults, with a fixed seed."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_three_minutes_lose_no_verdict(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    order = ["--minutes", "3", "--seed", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        # a process of its own: its settings are those of a machine, not of the suite
        [sys.executable, "-m", "tests.soak", *order],
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:]
