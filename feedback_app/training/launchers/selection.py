"""The launcher that the settings choose. Each is imported only when it is selected."""

from importlib import import_module

from django.conf import settings

from feedback_app.training.launchers.base import Launcher

#: TRAINER_LAUNCHER: module and class
LAUNCHERS = {
    "process": ("child_process", "ProcessLauncher"),
    "accelerate": ("accelerate", "AccelerateLauncher"),
}


def launcher_selected() -> Launcher:
    """Return a new launcher of the kind that TRAINER_LAUNCHER names."""
    module, name = LAUNCHERS[settings.TRAINER_LAUNCHER]
    found: Launcher = getattr(import_module(f"{__package__}.{module}"), name)()
    return found
