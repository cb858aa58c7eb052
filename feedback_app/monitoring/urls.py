from django.urls import path

from feedback_app.monitoring import views
from feedback_app.monitoring.system import views as system_views

urlpatterns = [
    path("health", views.health, name="health"),
    path("healthz", views.health, name="healthz"),
    path("readyz", views.ready, name="readyz"),
    path("system/", system_views.system, name="system"),
    path("system/free/", system_views.system_free, name="system-free"),
    path("metrics", views.metrics, name="metrics"),
]
