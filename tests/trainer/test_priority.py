"""A trainer that lets other processes of the machine go first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import priority
from trainer.priority import lower_priority

ROOT = Path(__file__).parents[2]


def niceness(*arguments: str) -> str:
    """What a child that was given these options on its command line says of its priority."""
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
        start_new_session=True,  # whose priority it may lower
    )
    return done.stdout.strip()


def test_a_run_is_as_nice_as_it_is_asked_to_be() -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness("--nice", "7") == str(min(here + 7, 19))
    assert niceness() == str(here), "without --nice it is an ordinary process"


def test_the_session_is_lowered_where_sessions_are_scheduled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "nice", calls.append)
    monkeypatch.setattr(priority, "AUTOGROUP", tmp_path / "autogroup")
    lower_priority(10)
    assert (calls, (tmp_path / "autogroup").read_text()) == ([10], "10")


def test_without_session_scheduling_niceness_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "nice", calls.append)
    monkeypatch.setattr(priority, "AUTOGROUP", tmp_path / "not" / "there")
    lower_priority(5)
    lower_priority(0)
    assert calls == [5]
