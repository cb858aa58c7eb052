"""App configuration."""

from django.apps import AppConfig


class FeedbackConfig(AppConfig):
    name = "feedback_app.feedback"
    label = "feedback"
