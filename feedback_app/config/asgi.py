"""ASGI entry point, for a separate process where thousands of streams are open at once."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
application = get_asgi_application()
