"""The launcher that project and settings choose. Each is imported only when it is selected."""

from importlib import import_module

from django.conf import settings

from feedback_app.feedback.models import Project
from feedback_app.training.launchers.base import Launcher

#: TRAINER_LAUNCHER: module and class
LAUNCHERS = {
    "process": ("child_process", "ProcessLauncher"),
    "accelerate": ("accelerate", "AccelerateLauncher"),
    "ray": ("ray_jobs", "RayLauncher"),
}


def launcher_name(project: Project) -> str:
    """Return the kind of launcher that the project has chosen, if this worker allows it, else what
    TRAINER_LAUNCHER names."""
    allowed = project.launcher in settings.TRAINER_LAUNCHERS
    return str(project.launcher if allowed else settings.TRAINER_LAUNCHER)


def launcher_selected(project: Project) -> Launcher:
    """Return a new launcher of the kind `launcher_name`."""
    module, name = LAUNCHERS[launcher_name(project)]
    found: Launcher = getattr(import_module(f"{__package__}.{module}"), name)()
    return found
