"""The app of the project: its management commands and the Celery app."""

from django.apps import AppConfig
from django.conf import settings


class ConfigConfig(AppConfig):
    name = "feedback_app.config"
    label = "config"

    def ready(self) -> None:
        # shared tasks bind to the current Celery app: every process must create ours
        from feedback_app.config import celery  # noqa: F401
        from feedback_app.monitoring import error_reports, tracing

        if settings.SENTRY_DSN:
            error_reports.start(dsn=settings.SENTRY_DSN, environment=settings.MODE)
        if settings.OTEL_EXPORTER_OTLP_ENDPOINT:
            tracing.start(endpoint=settings.OTEL_EXPORTER_OTLP_ENDPOINT)
