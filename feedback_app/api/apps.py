"""App configuration."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "feedback_app.api"
    label = "api"
