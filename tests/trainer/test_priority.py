"""A trainer that runs at a lower priority than other processes of the machine."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import priority
from trainer.priority import lower_priority

ROOT = Path(__file__).parents[2]


def niceness(*arguments: str) -> str:
    """Return the priority that a child with these command-line options reports."""
    code = (
        "import os, sys\n"
        "from trainer import __main__ as command\n"
        "command._train = lambda arguments: print(os.getpriority(os.PRIO_PROCESS, 0))\n"
        "command.main(['train', 'nowhere', *sys.argv[1:]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,  # so that its session's priority can be lowered
    )
    return done.stdout.strip()


def test_run_has_the_requested_niceness() -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness("--nice", "7") == str(min(here + 7, 19))
    assert niceness() == str(here), "without --nice the priority is unchanged"


def test_priority_of_the_session_is_lowered_with_session_scheduling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "nice", calls.append)
    monkeypatch.setattr(priority, "AUTOGROUP", tmp_path / "autogroup")
    monkeypatch.setattr(priority, "of_a_worker", lambda: True)
    lower_priority(10)
    assert (calls, (tmp_path / "autogroup").read_text()) == ([10], "10")

    monkeypatch.setattr(priority, "of_a_worker", lambda: False)
    lower_priority(7)
    assert (calls, (tmp_path / "autogroup").read_text()) == ([10, 7], "10")


#: Prints whether the trainer takes its session for that of a worker.
ASK = "from trainer.priority import of_a_worker; print(of_a_worker())"
#: What a worker does: it leads a session and starts the trainer.
LEAD = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"


@pytest.mark.parametrize(
    ("session", "own"),
    [
        pytest.param([ASK], True, id="leader"),
        pytest.param([LEAD, ASK], True, id="child-of-the-leader"),
        pytest.param([LEAD, LEAD, ASK], False, id="in-somebody-elses-session"),
    ],
)
def test_only_a_workers_session_is_lowered(session: list[str], own: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", *session],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    assert done.stdout.strip() == str(own)


def test_session_with_a_terminal_is_not_lowered() -> None:
    other_side, terminal = pty.openpty()
    done = subprocess.run(
        # the first terminal that a session's leader opens becomes the session's
        [sys.executable, "-c", f"import os; os.open(os.ttyname(0), os.O_RDWR); {ASK}"],
        cwd=ROOT,
        stdin=terminal,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    os.close(terminal)
    os.close(other_side)
    assert done.stdout.strip() == "False"


def test_niceness_suffices_without_session_scheduling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "nice", calls.append)
    monkeypatch.setattr(priority, "AUTOGROUP", tmp_path / "not" / "there")
    lower_priority(5)
    lower_priority(0)
    assert calls == [5]
