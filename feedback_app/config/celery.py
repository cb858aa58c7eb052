"""The Celery app: queues `default` (short work) and `gpu` (training, one at a time)."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
app = Celery("prospect")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
