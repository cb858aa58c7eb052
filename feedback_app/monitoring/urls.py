from django.urls import path

from feedback_app.monitoring import views

urlpatterns = [
    path("health", views.health, name="health"),
    path("healthz", views.health, name="healthz"),
    path("readyz", views.ready, name="readyz"),
    path("metrics", views.metrics, name="metrics"),
]
