"""ASGI entry point, for a separate process with thousands of open streams."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
application = get_asgi_application()
