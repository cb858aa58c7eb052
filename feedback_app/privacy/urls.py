"""URLs of a person's data: their own page, export and erasure."""

from django.urls import path

from feedback_app.privacy import views
from feedback_app.privacy.forgetting import views as forgetting_views

PERSON = "projects/<slug:slug>/people/<id:pk>/"

urlpatterns = [
    path("me/", views.me, name="me"),
    path("me/export/", views.me_export, name="me-export"),
    path("me/erase/", views.me_erase, name="me-erase"),
    path("projects/<slug:slug>/leave/", views.me_leave, name="me-leave"),
    path("erasures/<str:secret>/", forgetting_views.erasure_status, name="erasure-status"),
    path("projects/<slug:slug>/erasures/", forgetting_views.erasures, name="erasures"),
    path(
        "projects/<slug:slug>/completions/<id:pk>/erase/",
        forgetting_views.completion_erase,
        name="completion-erase",
    ),
    path(PERSON, views.person, name="person"),
    path(f"{PERSON}deactivate/", views.person_deactivate, name="person-deactivate"),
    path(f"{PERSON}reactivate/", views.person_reactivate, name="person-reactivate"),
    path(f"{PERSON}erase/", views.person_erase_view, name="person-erase"),
    path(
        "projects/<slug:slug>/api-people/erase/",
        views.api_person_erase,
        name="api-person-erase",
    ),
]
