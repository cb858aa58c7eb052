"""A project for tests that execute runs."""

import pytest

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.gate.services import gate_settings_save
from tests.training.gate.reports import SMALL_GATE


@pytest.fixture
def small(voted_project: Project, admin: User) -> Project:
    """A project whose runs are compared quickly."""
    voted_project.max_tokens = 8
    voted_project.save()
    gate_settings_save(project=voted_project, settings=SMALL_GATE, by=admin)
    return voted_project
