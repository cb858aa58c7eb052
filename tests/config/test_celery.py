"""How Celery delivers messages."""

import pytest

from feedback_app.config.celery import app

pytestmark = pytest.mark.slow


def test_messages_are_acknowledged_before_the_work() -> None:
    """Fault 20: no broker sends a message again because its run takes longer than a time-out."""
    app.loader.import_default_modules()
    assert not app.conf.task_acks_late
    assert [name for name, task in app.tasks.items() if task.acks_late] == []
