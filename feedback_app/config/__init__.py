"""Settings, URLs and the processes of one machine."""

from feedback_app.config.celery import app as celery_app

__all__ = ["celery_app"]
