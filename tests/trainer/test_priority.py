"""A trainer that runs at a lower priority than other processes of the machine."""

import os
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
    lower_priority(10)
    assert (calls, (tmp_path / "autogroup").read_text()) == ([10], "10")


def test_niceness_suffices_without_session_scheduling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "nice", calls.append)
    monkeypatch.setattr(priority, "AUTOGROUP", tmp_path / "not" / "there")
    lower_priority(5)
    lower_priority(0)
    assert calls == [5]
