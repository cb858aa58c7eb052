"""The plan of a stack: its processes, from the Procfile, and their environment."""

import errno
import os
import random
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from honcho.environ import parse_procfile

from feedback_app.localstack.paths import FILES, HOME

PACKAGED_MODEL = "SmolLM2-135M-Instruct"
PORTS = range(20_000, 32_768)
LOOPBACK = "127.0.0.1"
FREE_BYTES = 500 * 1024 * 1024  # a run with its checkpoints, answers and logs


class StackError(Exception):
    """The processes cannot run; the message says what to do."""


@dataclass(frozen=True)
class Plan:
    """The processes to start, in the Procfile's order, and their addresses."""

    commands: Mapping[str, str]
    env: Mapping[str, str]
    var: Path
    url: str
    engine_url: str
    redis_url: str


def plan(env: Mapping[str, str | None], names: Sequence[str] | None) -> Plan:
    """Return the ports, paths and commands of a stack.

    `env` overrides this process's environment; None removes a variable. Without `names` all
    processes run, except those that the environment places elsewhere: Valkey by REDIS_URL, the
    engine by ENGINE_URL or ENGINES. Raises StackError.
    """
    merged = {
        name: value for name, value in {**os.environ, **env}.items() if value is not None and value
    }
    commands = parse_procfile((FILES / "Procfile").read_text()).processes
    if names is None:
        elsewhere = set()
        if "REDIS_URL" in merged:
            elsewhere.add("valkey")
        if "ENGINE_URL" in merged or "ENGINES" in merged:
            elsewhere.add("engine")
        names = [name for name in commands if name not in elsewhere]
    unknown = sorted(set(names) - set(commands))
    if unknown:
        raise StackError(f"The Procfile has no process {', '.join(unknown)}.")

    var = Path(merged.get("PROSPECT_VAR", HOME / "var")).resolve()
    base_model = merged.get("BASE_MODEL", PACKAGED_MODEL)
    ports = {
        # the engine's usual port is preferred: other commands of this machine look there
        "web": ("PORT", None),
        "engine": ("ENGINE_PORT", 8001),
        "valkey": ("VALKEY_PORT", None),
    }
    taken: set[int] = set()
    for name, (variable, preferred) in ports.items():
        if name in names:
            port = chosen_port(merged, variable, preferred, avoid=taken)
            merged[variable] = str(port)
            taken.add(port)
    if "valkey" in names:
        merged["REDIS_URL"] = f"redis://{LOOPBACK}:{merged['VALKEY_PORT']}/0"
    if "engine" in names:
        merged["ENGINE_URL"] = f"http://{LOOPBACK}:{merged['ENGINE_PORT']}"
    merged |= {
        "PROSPECT_VAR": str(var),
        "BASE_MODEL": base_model,
        "MODEL_PATH": model_path(var, base_model),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{merged.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return Plan(
        commands={name: commands[name] for name in commands if name in names},
        env=merged,
        var=var,
        url=f"http://{LOOPBACK}:{merged.get('PORT', 8000)}",
        engine_url=merged.get("ENGINE_URL", f"http://{LOOPBACK}:8001"),
        redis_url=merged.get("REDIS_URL", f"redis://{LOOPBACK}:6379/0"),
    )


def model_path(var: Path, base_model: str) -> str:
    """Return the path of a base model under var/ if it exists, else its hub id.

    The packaged model exists by the time the engine starts (prepare.py).
    """
    local = var / "models" / base_model
    packaged = base_model == PACKAGED_MODEL
    return str(local) if packaged or (local / "config.json").exists() else base_model


def chosen_port(
    env: Mapping[str, str], variable: str, preferred: int | None, *, avoid: set[int]
) -> int:
    """Return the port that a variable names, which must be free, or else a free port."""
    if variable not in env:
        if preferred is not None and preferred not in avoid and port_fault(preferred) is None:
            return preferred
        return free_port(avoid)
    try:
        port = int(env[variable])
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise StackError(f"{variable}={env[variable]} is no port: choose one from 1 to 65535.")
    fault = "it is used twice" if port in avoid else port_fault(port)
    if fault:
        raise StackError(
            f"Port {port} is not free ({fault}): stop what uses it or choose another one, "
            f"for example {variable}={free_port(avoid)}."
        )
    return port


def port_fault(port: int) -> str | None:
    """Return why a port of loopback cannot be used, or None if it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        if probe.connect_ex((LOOPBACK, port)) == 0:
            return "another program answers there"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as servers do: a port in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                return "this user may not listen there"
            return "another program listens there"
    return None


def free_port(avoid: set[int]) -> int:
    """Return an unused port of loopback.

    It is below the ports of outgoing connections (from 32768 on Linux, 49152 elsewhere), so that
    none of them takes it before the process has started. Raises StackError if all are in use.
    """
    for port in random.sample(PORTS, len(PORTS)):
        if port not in avoid and port_fault(port) is None:
            return port
    raise StackError(f"No port from {PORTS.start} to {PORTS.stop - 1} is free: stop something.")


def require_space(directory: Path, needed: int = FREE_BYTES) -> None:
    """Raise StackError if the disk under `directory` is nearly full or not writable."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise StackError(
            f"{directory} cannot be made ({error.strerror}): give another one in PROSPECT_VAR."
        ) from error
    if free < needed:
        raise StackError(
            f"The disk that holds {directory} has {free / 1e6:,.0f} MB left and Prospect needs "
            f"{needed / 1e6:,.0f} MB: make room, or choose another place with PROSPECT_VAR."
        )
    if not os.access(directory, os.W_OK):
        raise StackError(
            f"{directory} cannot be written: change its owner, or choose another "
            "place with PROSPECT_VAR."
        )
