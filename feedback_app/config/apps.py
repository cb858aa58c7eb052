"""The project's own app: it carries the commands that start everything."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "feedback_app.config"
    label = "config"
