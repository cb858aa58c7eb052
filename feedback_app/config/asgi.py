"""ASGI entry point: uvicorn reads and writes, threads run Django's views and streams."""

import gc
import os
import re

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import reverse

from feedback_app.config.threads import ThreadedWsgi
from feedback_app.monitoring.processes import ProcessBeat

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")

#: POST requests that wait for an engine; a test compares them with the URLs of the views.
WAITS_FOR_ENGINE = re.compile(
    r"/v1/chat/completions"
    r"|/demo/[^/]+/(new|c/[^/]+/(send|turns/\d+/again)|compare/[^/]+/[^/]+/answer)/"
    r"|/s/[^/]+/(send|turns/\d+/again)/"
    r"|/projects/[^/]+/(adapters/[^/]+/release|splits/new)/"
)

MONITORING = ("/health", "/healthz", "/readyz", "/metrics")

application = ThreadedWsgi(
    get_wsgi_application(),
    waits=lambda path: WAITS_FOR_ENGINE.fullmatch(path) is not None,
    monitoring=MONITORING,
)
if settings.MODE != "test":
    ProcessBeat("web").forever()
# loads the views now instead of at the first request
reverse("home")

# Everything loaded by now stays: exclude it from garbage collection.
gc.collect()
gc.freeze()
