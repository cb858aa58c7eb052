"""URLs of the serving app."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
