"""WSGI entry point: gunicorn with threads serves pages and streams."""

import gc
import os

from django.core.wsgi import get_wsgi_application
from django.urls import reverse

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
application = get_wsgi_application()
# loads the views now instead of at the first request
reverse("home")

# Everything loaded by now stays: exclude it from garbage collection, and collect less often.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 20)
