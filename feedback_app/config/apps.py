"""The project's own app: it carries the commands that start everything, and the Celery app."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "feedback_app.config"
    label = "config"

    def ready(self) -> None:
        # shared tasks belong to the app that was made last: every process must have made ours
        from feedback_app.config import celery  # noqa: F401
