"""App configuration."""

from django.apps import AppConfig


class ServingConfig(AppConfig):
    name = "feedback_app.serving"
    label = "serving"
