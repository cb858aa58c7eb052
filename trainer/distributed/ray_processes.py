"""The entrypoint of a Ray job whose run is trained by several processes, on one or several nodes:
`python -m trainer.distributed.ray_processes OPTIONS -- COMMAND …`.

Reserves a place for each process, starts COMMAND in each of them with the variables that torchrun
sets, and waits until all have ended. Once one has failed, or this process was asked to stop, the
others are asked to stop, and killed if they do not. Exit code: see `exit_code`.

Runs with the cluster's version of Ray, which the trainer does not need otherwise.
"""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trainer.errors import Cancelled, NotWritten, Refused, RunFailed, TrainerError
from trainer.signals import StopRequest

#: How long processes have to end after they were asked to: less than the 60 seconds after which Ray
#: kills this process (feedback_app/training/launchers/ray_requests.py).
STOP_SECONDS = 50.0
#: Exit codes that no other attempt would change; the first that a process has is that of the run.
FINAL = (Refused.exit_code, RunFailed.exit_code, NotWritten.exit_code)
#: How much of what a process prints outside of the run's directory is kept, in characters.
OUTPUT_CHARACTERS = 4_000


@dataclass(frozen=True)
class Place:
    """Where a process of the run will be: its node and the node's address, a free port there, and
    the GPUs that Ray has given it."""

    node: str
    address: str
    port: int
    gpus: tuple[str, ...] = ()


class Process:
    """One process of the run; an actor on its node. `stop` and `kill` may be called during `run`,
    or before it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._asked: signal.Signals | None = None
        self._lock = threading.Lock()

    def place(self) -> tuple[str, str, int, tuple[str, ...]]:
        """Return the values of this process's Place."""
        import ray

        context = ray.get_runtime_context()
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        gpus = tuple(context.get_accelerator_ids().get("GPU", ()))
        return context.get_node_id(), ray.util.get_node_ip_address(), port, gpus

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        """Run the command; return its exit code, negative for a signal, and what it printed."""
        with self._lock:
            if self._asked is not None:
                return -self._asked, ""
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, **environment},
                start_new_session=True,  # it is killed with its children
            )
        output, _ = self._child.communicate()
        return self._child.returncode, output[-OUTPUT_CHARACTERS:]

    def stop(self) -> None:
        """Ask the command to write a checkpoint and end."""
        with self._lock:
            self._asked = signal.SIGTERM
            if self._child is not None:
                self._child.send_signal(signal.SIGTERM)  # does nothing once it has ended

    def kill(self) -> None:
        """Kill the command and its children."""
        with self._lock:
            self._asked = signal.SIGKILL
            if self._child is not None and self._child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)


def environments(places: Sequence[Place]) -> list[dict[str, str]]:
    """Return the variables of each process, in the order of ranks.

    The processes of a node see the GPUs of all of them, so that NCCL can use their direct
    connections, and each uses the one of its number there.
    """
    on_node: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        on_node[place.node].append(place)
    found = []
    started: dict[str, int] = defaultdict(int)
    for rank, place in enumerate(places):
        variables = {
            "MASTER_ADDR": places[0].address,
            "MASTER_PORT": str(places[0].port),
            "WORLD_SIZE": str(len(places)),
            "RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(len(on_node[place.node])),
            "LOCAL_RANK": str(started[place.node]),
        }
        if place.gpus:
            gpus = [gpu for other in on_node[place.node] for gpu in other.gpus]
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        started[place.node] += 1
        found.append(variables)
    return found


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code and what it printed outside of the run's directory."""

    code: int
    output: str = ""


def exit_code(codes: Collection[int], *, stopped: bool) -> int:
    """Return the exit code of a run from those of its processes.

    A process that is refused or fails ends the others, which may report that they were cancelled.
    Anything that is not final is a crash, which may be retried.
    """
    if not any(codes):
        return 0
    for final in FINAL:
        if final in codes:
            return final
    if stopped or set(codes) == {Cancelled.exit_code}:
        return Cancelled.exit_code
    return TrainerError.exit_code


def report(ends: Mapping[int, End], code: int) -> str:
    """Return what processes printed outside of the run's directory, by their ranks: what explains
    the exit code of the run last. Names those that printed nothing where the code says nothing."""
    lines = []
    for rank, end in sorted(ends.items(), key=lambda item: item[1].code == code):
        if end.code and (end.output or code not in FINAL):
            lines.append(f"process {rank} ended with {end.code}\n{end.output}".strip())
    return "\n".join(lines)


def run(command: Sequence[str], *, count: int, resources: Mapping[str, float], spread: bool) -> int:
    """Run the command in `count` processes, each with these resources of the cluster; on a node of
    its own with `spread`, else on as few nodes as possible. Return the exit code of the run."""
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    # what it logs would be taken for the reason of a failure
    ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
    stop = StopRequest.listening()  # after Ray has set handlers of its own
    group = placement_group(
        [{name: amount for name, amount in resources.items() if amount}] * count,
        strategy="STRICT_SPREAD" if spread else "PACK",
    )
    while not group.wait(timeout_seconds=1):
        if stop.asked:
            return Cancelled.exit_code
    actors = [
        ray.remote(Process)
        .options(
            num_cpus=resources["CPU"],
            num_gpus=resources["GPU"],
            max_concurrency=3,  # run, stop and kill
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=group, placement_group_bundle_index=index
            ),
        )
        .remote()
        for index in range(count)
    ]
    places = [Place(*values) for values in ray.get([actor.place.remote() for actor in actors])]
    running = {
        actor.run.remote(command, variables): rank
        for rank, (actor, variables) in enumerate(zip(actors, environments(places), strict=True))
    }
    ends = wait(running, actors, stop)
    code = exit_code([end.code for end in ends.values()], stopped=stop.asked)
    sys.stdout.write(report(ends, code))
    return code


def wait(running: dict[Any, int], actors: Sequence[Any], stop: StopRequest) -> dict[int, End]:
    """Return how the processes have ended, by their ranks, when all have; one that was lost has the
    exit code of a crash. `running` has the rank of each by what its actor's `run` will return."""
    import ray
    from ray.exceptions import RayError

    ends: dict[int, End] = {}
    kill_at: float | None = None
    while running:
        ended, _ = ray.wait(list(running), timeout=1)
        for future in ended:
            rank = running.pop(future)
            try:
                ends[rank] = End(*ray.get(future))
            except RayError as error:  # the node was lost, or has no such command
                ends[rank] = End(TrainerError.exit_code, str(error))
        if kill_at is None and (stop.asked or any(end.code for end in ends.values())):
            kill_at = time.monotonic() + STOP_SECONDS
            for rank in running.values():
                actors[rank].stop.remote()
        if kill_at is not None and time.monotonic() > kill_at:
            kill_at = float("inf")
            for rank in running.values():
                actors[rank].kill.remote()
    return ends


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer.distributed.ray_processes")
    parser.add_argument("--processes", required=True, type=int)
    parser.add_argument("--cpus", required=True, type=float, help="of each process")
    parser.add_argument("--gpus", required=True, type=float, help="of each process")
    parser.add_argument("--spread", action="store_true", help="each process on a node of its own")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    try:
        return run(
            given.command,
            count=given.processes,
            resources={"CPU": given.cpus, "GPU": given.gpus},
            spread=given.spread,
        )
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        sys.stderr.write(
            f"RAY_PROCESSES is {given.processes}, and {sys.executable} has no package ray: install "
            "the cluster's version there\n"
        )
        return Refused.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
