"""WSGI entry point: gunicorn with threads serves pages and streams."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
application = get_wsgi_application()
