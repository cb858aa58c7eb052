"""URLs of the serving app."""

from django.urls import path

from feedback_app.serving import views, views_release

CHAT = "demo/<slug:slug>/c/<uuid:pk>/"

urlpatterns = [
    path("projects/<slug:slug>/releases/", views_release.releases, name="releases"),
    path(
        "projects/<slug:slug>/adapters/<str:name>/release/", views_release.release, name="release"
    ),
    path("demo/<slug:slug>/", views.demo, name="demo"),
    path("demo/<slug:slug>/new/", views.conversation_new, name="conversation-new"),
    path(CHAT, views.conversation, name="conversation"),
    path(f"{CHAT}send/", views.conversation_send, name="conversation-send"),
    path(f"{CHAT}turns/<int:turn>/again/", views.turn_again_view, name="turn-again"),
    path(f"{CHAT}choose/", views.conversation_choose_view, name="conversation-choose"),
    path("demo/<slug:slug>/completions/<int:pk>/vote/", views.demo_vote, name="demo-vote"),
    path("demo/<slug:slug>/completions/<int:pk>/undo/", views.demo_undo, name="demo-undo"),
]
