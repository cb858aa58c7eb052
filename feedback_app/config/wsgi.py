"""WSGI entry point: gunicorn with threads serves pages and streams."""

import gc
import os

from django.core.wsgi import get_wsgi_application
from django.urls import reverse

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
application = get_wsgi_application()
# loads the pages, for which the first to ask would wait
reverse("home")

# What is loaded by now stays: the collector need not look at it again, and may come less often.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 20)
