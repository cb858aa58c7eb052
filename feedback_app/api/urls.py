"""URLs of the two APIs and of their reference page."""

from django.urls import path

from feedback_app.api.data.api import data_api_urls
from feedback_app.api.gateway.api import gateway_urls
from feedback_app.api.reference import views

urlpatterns = [
    path("v1/", gateway_urls()),
    path("api/v1/", data_api_urls()),
    path("projects/<slug:slug>/api/", views.api_docs, name="api-docs"),
]
