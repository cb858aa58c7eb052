"""A judge server on loopback, which the settings allow, and short pauses between repetitions."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from feedback_app.training.gate.judge import interview
from tests.training.gate.judge.server import JudgeServer, judging


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    settings.JUDGE_NETWORKS = ["127.0.0.0/8"]
    monkeypatch.setattr(interview, "PAUSES", (0.01, 0.02))
    with judging() as found:
        yield found
