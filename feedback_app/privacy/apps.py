"""App configuration."""

from django.apps import AppConfig


class PrivacyConfig(AppConfig):
    name = "feedback_app.privacy"
    label = "privacy"
