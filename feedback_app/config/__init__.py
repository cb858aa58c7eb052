"""Settings, URLs and the processes of one machine.

It imports nothing: the supervisor (demo.py) needs neither Django nor Celery. Django loads the
Celery app with its own apps (apps.py); `celery -A feedback_app.config` finds it in celery.py.
"""
