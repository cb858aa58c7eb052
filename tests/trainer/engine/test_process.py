"""`python -m trainer serve` as a process: it starts, answers, logs, and ends on request."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.engines import PATIENCE, ROOT, free_port, run_engine, wait_until

CHAT = "/v1/chat/completions"

pytestmark = pytest.mark.slow  # importing torch in a new process takes seconds


def test_sigterm_ends_the_engine_cleanly_and_the_log_is_json(
    tiny_dir: Path, tmp_path: Path
) -> None:
    with run_engine(tiny_dir, tmp_path / "artifacts", served_name="tiny") as running:
        messages = [{"role": "user", "content": "a secret of the user"}]
        httpx.post(
            running.url + CHAT,
            json={"model": "tiny", "messages": messages, "max_tokens": 3, "ignore_eos": True},
            timeout=PATIENCE,
        ).raise_for_status()
        # an unfinished stream must not delay the end beyond the grace period
        stream = {"model": "tiny", "messages": messages, "max_tokens": 480, "stream": True}
        with (
            httpx.Client(timeout=PATIENCE) as client,
            client.stream("POST", running.url + CHAT, json=stream) as response,
        ):
            lines = response.iter_lines()
            assert next(lines)
            running.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert rest[-2:] == ["data: [DONE]", ""], "a request in flight is finished"
        wait_until(lambda: running.process.poll() is not None, what="its end")
    assert running.process.returncode == 0
    log = (running.artifacts / "engine.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["event"] for line in lines][:2] == ["serving", "answered"]
    assert lines[0]["precision"] == "float32: set by the configuration"
    assert lines[1]["completion_tokens"] == 3
    assert "secret" not in log


def test_missing_model_is_reported_in_one_sentence(tmp_path: Path) -> None:
    serve = [sys.executable, "-m", "trainer", "serve", "--model", str(tmp_path / "nothing")]
    done = subprocess.run(
        [*serve, "--artifacts", str(tmp_path), "--port", str(free_port())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr
