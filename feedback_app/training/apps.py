"""App configuration."""

from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "feedback_app.training"
    label = "training"
