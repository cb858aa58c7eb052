"""Killed at any moment and restarted, a run ends with the bytes of an undisturbed one.

The moments are drawn with a seed and spread over the run: before changes on disk, before modules
compute, within writes (the kernel truncates the file), and by time from outside. The module
tests.trainer.training.killing forks the processes that are killed.
"""

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import MakeRun, example, write_run
from tests.trainer.training.killing import End, Killer
from trainer.artifacts.adapter_directory import MANIFEST, WEIGHTS, verify_adapter
from trainer.data.examples import write_examples

# each test runs the trainer several times
pytestmark = [pytest.mark.slow, pytest.mark.long]

# Two epochs of nine examples in steps of at most four.
STEPS = 6
SETTINGS = {"lora_dropout": 0.1, "probe_every": 4, "kl_brake": 50.0}
KILLED = (signal.SIGKILL, signal.SIGXFSZ)


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with Killer() as found:
        yield found


def write_validated_run(run_dir: Path, tiny_dir: Path, **config: Any) -> Path:
    """Write a run of this module's kind, with validation examples."""
    write_run(run_dir, tiny_dir, **{**SETTINGS, **config})
    write_examples(run_dir / "validation.jsonl", [example(number) for number in range(30, 42)])
    return run_dir


@pytest.fixture
def make(tmp_path: Path, tiny_dir: Path) -> MakeRun:
    """Return a function that makes runs of the same content."""
    return lambda name, **config: write_validated_run(tmp_path / name, tiny_dir, **config)


class Quiet:
    """An undisturbed run: its events and files."""

    def __init__(self, killer: Killer, run_dir: Path) -> None:
        self.killer = killer
        self.end = killer.run(run_dir)
        assert self.end.code == 0
        self.run_dir = run_dir
        self.result = result(run_dir)
        self.events = readable_events(run_dir)

    def first(self, name: str, *, change: str = "") -> int:
        """Return the number of the first change, of this kind, to a path with this name in it."""
        changes = enumerate(self.end.changes, start=1)
        return next(n for n, found in changes if name in found and found.startswith(change))

    def assert_resumes(self, run_dir: Path) -> list[dict[str, Any]]:
        """Assert that the run, restarted, ends as this one did; return its readable events."""
        assert self.killer.run(run_dir).code == 0
        assert result(run_dir) == self.result
        verify_adapter(run_dir / "adapter", base_fingerprint=None, max_rank=4)
        left = [path for path in run_dir.rglob("*") if path.suffix == ".partial"]
        assert left == []
        found = readable_events(run_dir)
        assert sum(event["type"] == "done" for event in found) == 1
        return found


@pytest.fixture(scope="module")
def quiet(killer: Killer, tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Quiet:
    return Quiet(killer, write_validated_run(tmp_path_factory.mktemp("quiet") / "run", tiny_dir))


def moments(count: int, of: int) -> list[int]:
    """Return `count` moments among `of`, one at random in each of `count` equal parts."""
    rng = random.Random(f"moments/{count}/{of}")
    return [1 + int((part + rng.random()) * of / count) for part in range(count)]


def result(run_dir: Path) -> tuple[bytes, bytes]:
    """Return the weights and the fit of a finished run."""
    return (run_dir / "adapter" / WEIGHTS).read_bytes(), (run_dir / "fit.jsonl").read_bytes()


def readable_events(run_dir: Path) -> list[dict[str, Any]]:
    """Return the events whose lines are complete."""
    found = []
    for line in (run_dir / "events.jsonl").read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            assert not line.endswith("}")  # a truncated line, not two lines in one
    return found


def assert_killed(end: End, run_dir: Path) -> None:
    """Assert that the process was killed and the adapter directory is complete or absent."""
    assert end.signal in KILLED
    if (run_dir / "adapter").exists():
        verify_adapter(run_dir / "adapter", base_fingerprint=None, max_rank=4)


def assert_all_steps(found: list[dict[str, Any]]) -> None:
    """Assert that every step's event can be read."""
    assert {event["step"] for event in found if event["type"] == "step"} == set(range(1, STEPS + 1))


def test_run_killed_at_any_moment_resumes(quiet: Quiet, killer: Killer, make: MakeRun) -> None:
    changes = len(quiet.end.changes)
    drawn = moments(12, changes)
    assert min(drawn) < quiet.first(".step-") - 1  # while the reference is computed
    assert max(drawn) > quiet.first(".adapter.partial")  # while the adapter is written
    torn = zip(moments(6, changes), (0, 20, 300) * 2, strict=True)
    orders: list[dict[str, Any]] = [
        *({"how": "change", "at": at} for at in drawn),
        *({"how": "compute", "at": at} for at in moments(4, quiet.end.computed)),
        *({"how": "tear", "at": at, "size": size} for at, size in torn),
    ]
    for number, order in enumerate(orders):
        run_dir = make(f"killed-{number}")
        assert_killed(killer.run(run_dir, **order), run_dir)
        assert_all_steps(quiet.assert_resumes(run_dir))


def test_partly_written_directory_is_ignored(quiet: Quiet, killer: Killer, make: MakeRun) -> None:
    for number, name in enumerate((".step-00000003.partial", ".adapter.partial")):
        run_dir = make(f"torn-{number}")
        end = killer.run(run_dir, how="tear", at=quiet.first(name), size=10_000)
        assert_killed(end, run_dir)
        (half,) = run_dir.rglob(name)
        assert max(path.stat().st_size for path in half.iterdir()) <= 10_000
        assert_all_steps(quiet.assert_resumes(run_dir))


def test_partial_event_line_is_ignored(quiet: Quiet, killer: Killer, make: MakeRun) -> None:
    run_dir = make("torn")
    # the event of the first checkpoint is the first line after this change
    at = quiet.first("/.step-00000001.partial", change="os.rename")
    end = killer.run(run_dir, how="tear", at=at, size=7, beyond_events=True)
    assert_killed(end, run_dir)
    assert not (run_dir / "events.jsonl").read_bytes().endswith(b"\n")
    assert_all_steps(quiet.assert_resumes(run_dir))


def test_partial_done_event_is_written_again(quiet: Quiet, killer: Killer, make: MakeRun) -> None:
    run_dir = make("torn")
    at = len(quiet.end.changes)
    end = killer.run(run_dir, how="tear", at=at, size=25, beyond_events=True)
    assert_killed(end, run_dir)
    assert '{"type": "done"' in (run_dir / "events.jsonl").read_text().splitlines()[-1]
    assert [event for event in readable_events(run_dir) if event["type"] == "done"] == []
    assert_all_steps(quiet.assert_resumes(run_dir))


def test_damage_by_a_power_cut_is_ignored(quiet: Quiet, killer: Killer, make: MakeRun) -> None:
    # killed while the reference is computed; the end of the last write is lost
    run_dir = make("reference")
    last = quiet.first(".step-00000001.partial") - 1
    assert_killed(killer.run(run_dir, how="change", at=last), run_dir)
    kept = [path for path in run_dir.rglob("*") if path.is_file() and path.stat().st_size > 200]
    damaged = [path for path in kept if "reference" in str(path.relative_to(run_dir))]
    assert damaged != []
    for path in (*damaged, run_dir / "events.jsonl"):
        path.write_bytes(path.read_bytes()[:-5])
    quiet.assert_resumes(run_dir)

    # killed after the fourth checkpoint; half of it is zeros, and half of a fifth exists
    run_dir = make("checkpoint")
    at = quiet.first(".step-00000005.partial")
    assert_killed(killer.run(run_dir, how="change", at=at), run_dir)
    (newest,) = (run_dir / "checkpoints").glob("step-00000004")
    tensors = newest / "state.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:50_000] + bytes(len(whole) - 50_000))
    half = run_dir / "checkpoints" / ".step-00000005.partial"
    half.mkdir()
    (half / "state.json").write_text('{"step": 5')
    found = quiet.assert_resumes(run_dir)
    assert [event["resumed_from_step"] for event in found if event["type"] == "start"] == [0, 3]

    # killed after the adapter was renamed; its weights are only partly on disk
    run_dir = make("adapter")
    at = len(quiet.end.changes)
    assert_killed(killer.run(run_dir, how="change", at=at), run_dir)
    weights = run_dir / "adapter" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:10_000])
    quiet.assert_resumes(run_dir)


def test_run_killed_from_outside_by_time_resumes(
    quiet: Quiet, killer: Killer, make: MakeRun
) -> None:
    for share in (0.3, 0.6, 0.9):
        run_dir = make(f"killed-{share}")
        end = killer.run(run_dir, how="clock", seconds=share * quiet.end.seconds)
        assert end.code == 0 or end.signal == signal.SIGKILL
        quiet.assert_resumes(run_dir)


def test_run_killed_repeatedly_resumes(quiet: Quiet, killer: Killer, make: MakeRun) -> None:
    run_dir = make("killed")
    rng = random.Random("again and again")
    killed = 0
    for _ in range(6):
        at = rng.randint(quiet.end.computed // 5, quiet.end.computed // 2)
        end = killer.run(run_dir, how="compute", at=at)
        if end.code == 0:  # what was left after the last kill was less
            break
        assert_killed(end, run_dir)
        killed += 1
    assert killed >= 3
    assert_all_steps(quiet.assert_resumes(run_dir))


def test_best_adapter_is_kept_after_a_later_kill(killer: Killer, make: MakeRun) -> None:
    overfitting = {"epochs": 12, "lr_schedule": "constant", "probe_every": 3, "patience": 2}
    quiet = Quiet(killer, make("quiet", **overfitting))
    (braked,) = [event for event in quiet.events if event["type"] == "braked"]
    manifest = json.loads((quiet.run_dir / "adapter" / MANIFEST).read_text())
    best = manifest["train"]["steps"]
    assert best + 2 < braked["step"]
    for number, moment in enumerate((f".step-{best + 2:08d}.partial", ".adapter.partial")):
        run_dir = make(f"killed-{number}", **overfitting)
        assert_killed(killer.run(run_dir, how="change", at=quiet.first(moment)), run_dir)
        found = quiet.assert_resumes(run_dir)
        started = [event["resumed_from_step"] for event in found if event["type"] == "start"]
        assert started[-1] > best
