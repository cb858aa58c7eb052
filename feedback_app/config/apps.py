"""The app of the project: its management commands and the Celery app."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "feedback_app.config"
    label = "config"

    def ready(self) -> None:
        # shared tasks bind to the current Celery app: every process must create ours
        from feedback_app.config import celery  # noqa: F401
