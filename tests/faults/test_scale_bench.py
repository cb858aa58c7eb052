"""The benchmark of sizes at a small size: every page and operation can still be requested.

A view that nobody has said anything about in bench/scale_parts/operations.py fails here. Nothing is
said about speed.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.scale_parts.operations import LEFT_OUT, POSTS, key_of, operations
from tests.faults.test_crawl import routes

ROOT = Path(__file__).resolve().parents[2]


def test_every_view_is_measured_or_left_out_with_a_reason() -> None:
    keys = {key_of(route) for route in routes()}
    measured = {key_of(operation.route) for operation in operations()}
    assert keys - measured == set(LEFT_OUT) & keys
    assert set(LEFT_OUT) - keys == set(), "no such views"
    assert set(POSTS) - keys == set(), "no such views"
    assert set(POSTS) & set(LEFT_OUT) == set()


@pytest.mark.long
def test_every_operation_is_answered_at_a_small_size() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.scale", "--sizes", "5000,6000", "--repeats", "5"),
            *("--seconds", "4", "--formats", "jsonl"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1_800,
    )
    assert "met     operations that were refused: none" in done.stdout, done.stdout + done.stderr
    assert "errors of annotators: 0" in done.stdout
    assert "import, jsonl" in done.stdout
