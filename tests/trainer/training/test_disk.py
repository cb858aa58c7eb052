"""A full or read-only disk: one error message, nothing lost, and the run resumes to the same
bytes once there is space.

Real processes on real files: from some change on, the kernel lets no file grow beyond a size (and
writes the exceeding data partially), or the directory's permissions forbid writing. The module
tests.trainer.training.killing forks the processes, without root's right to write everywhere.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trainer.conftest import MakeRun, events
from tests.trainer.training.killing import End, Killer
from tests.trainer.training.test_kill import Quiet, result, write_validated_run
from trainer.errors import NotWritten

# each test runs the trainer several times
pytestmark = [pytest.mark.slow, pytest.mark.long]

FULL = "cannot be written (File too large): make room or allow it"
TORN = FULL.replace("File too large", "No space left on device")
FORBIDDEN = "cannot be written (Permission denied): make room or allow it"


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with Killer() as found:
        yield found


@pytest.fixture
def make(tmp_path: Path, tiny_dir: Path) -> MakeRun:
    """Return a function that makes runs of the same content."""
    return lambda name, **config: write_validated_run(tmp_path / name, tiny_dir, **config)


@pytest.fixture(scope="module")
def quiet(killer: Killer, tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Quiet:
    return Quiet(killer, write_validated_run(tmp_path_factory.mktemp("quiet") / "run", tiny_dir))


@dataclass(frozen=True)
class Full:
    """From the change with this name on (`shift` changes earlier or later; the last one of this
    name with `last`) files are limited to `size` bytes; the run then resumes at step `kept`."""

    name: str
    size: int
    kept: int
    shift: int = 0
    last: bool = False
    beyond_events: bool = False

    def at(self, changes: tuple[str, ...]) -> int:
        found = [n for n, change in enumerate(changes, start=1) if self.name in change]
        return found[-1 if self.last else 0] + self.shift


FULL_AT = {
    "the header of the reference cache": Full("pwrite", 10, 0),
    "the plan of the reference": Full("reference-1.partial", 5, 3),
    "the reference cache": Full("pwrite", 10, 3, last=True),
    "the tensors of a checkpoint": Full(".step-00000003.partial", 10_000, 2),
    "the position of a checkpoint": Full("step-00000005.partial/state.json", 10, 4),
    # after the last recorded change before it: writing the best adapter causes no audit event
    "the best adapter so far": Full("pwrite", 10_000, 3, last=True),
    "half of an event": Full(".step-00000003.partial", 7, 2, shift=-1, beyond_events=True),
    "the fit": Full("fit.partial", 100, 5),
    "the weights of the adapter": Full(".adapter.partial", 10_000, 5),
    "the card of the adapter": Full("adapter.partial/README.md", 100, 5),
}


@pytest.mark.parametrize("full", FULL_AT.values(), ids=FULL_AT)
def test_full_disk_is_reported_in_one_line_and_the_run_resumes(
    full: Full, quiet: Quiet, killer: Killer, make: MakeRun
) -> None:
    run_dir = make("full")
    end = killer.run(
        run_dir,
        how="full",
        at=full.at(quiet.end.changes),
        size=full.size,
        beyond_events=full.beyond_events,
    )
    assert_reported(end, run_dir, FULL)
    found = quiet.assert_resumes(run_dir)
    assert [event["resumed_from_step"] for event in found if event["type"] == "start"][-1] == (
        full.kept
    )
    steps = [event["step"] for event in found if event["type"] == "step"]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]
    assert not any(event["type"] == "failed" for event in found)  # which would be final


def test_full_disk_does_not_damage_other_runs(
    killer: Killer, make: MakeRun, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    first = make("first", reference_cache=str(shared))
    assert killer.run(first).code == 0
    before = {path: path.read_bytes() for path in (first / "adapter").iterdir()}
    (cache,) = shared.iterdir()
    known = cache.read_bytes()

    # another run with other pairs appends to the same cache and leaves a partial record; its twin
    # determines at which change
    shutil.copytree(shared, tmp_path / "copy")
    twin = make("twin", reference_cache=str(tmp_path / "copy"), seed=1)
    changes = killer.run(twin).changes
    other = make("other", reference_cache=str(shared), seed=1)
    (complete,) = (tmp_path / "copy").iterdir()
    at = Full("pwrite", 0, 0).at(changes)
    end = killer.run(other, how="full", at=at, size=complete.stat().st_size - 10)
    assert_reported(end, cache, TORN)
    assert cache.stat().st_size == complete.stat().st_size - 10

    assert {path: path.read_bytes() for path in (first / "adapter").iterdir()} == before
    assert cache.read_bytes()[: len(known)] == known
    again = make("again", reference_cache=str(shared))
    assert killer.run(again).code == 0
    assert result(again) == result(first)
    assert killer.run(other).code == 0
    assert result(other) == result(twin)


def test_run_directory_read_only_from_the_start_is_reported(killer: Killer, make: MakeRun) -> None:
    run_dir = make("forbidden")
    run_dir.chmod(0o555)
    assert_reported(killer.run(run_dir), run_dir, FORBIDDEN)
    run_dir.chmod(0o755)
    assert killer.run(run_dir).code == 0


@pytest.mark.parametrize(
    ("place", "stopped_before"),
    [("checkpoints", ".step-00000003"), (".", "fit.partial"), ("reference", "reference-1")],
)
def test_directory_that_became_read_only_is_reported(
    place: str, stopped_before: str, quiet: Quiet, killer: Killer, make: MakeRun
) -> None:
    run_dir = make("forbidden")
    killer.run(run_dir, how="change", at=quiet.first(stopped_before))
    forbidden = [run_dir / place, *(run_dir / place).glob("*.logprobs")]
    before = {path: path.stat().st_mode for path in forbidden}
    for path, mode in before.items():
        path.chmod(mode & 0o555)
    assert_reported(killer.run(run_dir), run_dir, FORBIDDEN)
    assert "cannot be written" in events(run_dir, "warning")[-1]["message"]
    for path, mode in before.items():
        path.chmod(mode)
    quiet.assert_resumes(run_dir)


def test_read_only_event_file_is_reported(quiet: Quiet, killer: Killer, make: MakeRun) -> None:
    run_dir = make("forbidden")
    killer.run(run_dir, how="change", at=quiet.first(".step-00000003"))
    (run_dir / "events.jsonl").chmod(0o444)
    assert_reported(killer.run(run_dir), run_dir, FORBIDDEN)
    (run_dir / "events.jsonl").chmod(0o644)
    quiet.assert_resumes(run_dir)


def assert_reported(end: End, place: Path, reason: str) -> None:
    """Assert that the process reported the error in one line, and left no adapter."""
    assert (end.code, end.signal) == (NotWritten.exit_code, None), end.words
    (sentence,) = end.words.splitlines()
    assert sentence.startswith(f"python -m trainer: {place}")
    assert reason in sentence
    assert sentence.endswith("start again; what was written before is kept")
    assert not (place / "adapter").exists()
