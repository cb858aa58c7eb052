"""App configuration."""

from django.apps import AppConfig


class ServingConfig(AppConfig):
    name = "feedback_app.serving"
    label = "serving"

    def ready(self) -> None:
        from feedback_app.serving.share_links import services  # noqa: F401 - connects its receiver
