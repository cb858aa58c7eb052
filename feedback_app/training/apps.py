"""App configuration."""

from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "feedback_app.training"
    label = "training"

    def ready(self) -> None:
        from feedback_app.feedback.desk.notices import notices_from
        from feedback_app.training.gate.people.notices import pairs_notice

        notices_from(pairs_notice)
