"""URLs of the serving app."""

from django.urls import path

from feedback_app.serving import (
    views,
    views_api,
    views_changes,
    views_compare,
    views_person,
    views_release,
    views_share_links,
    views_shared,
    views_split,
)

CHAT = "demo/<slug:slug>/c/<uuid:pk>/"
PERSON = "projects/<slug:slug>/people/<int:pk>/"
CHANGES = "projects/<slug:slug>/adapters/<str:name>/changes/"
SHARED = "s/<str:secret>/"
COMPARE = "demo/<slug:slug>/compare/"

urlpatterns = [
    path("projects/<slug:slug>/releases/", views_release.releases, name="releases"),
    path(
        "projects/<slug:slug>/adapters/<str:name>/release/", views_release.release, name="release"
    ),
    path(CHANGES, views_changes.changes, name="changes"),
    path(f"{CHANGES}progress/", views_changes.changes_progress, name="changes-progress"),
    path(f"{CHANGES}new/", views_changes.changes_new, name="changes-new"),
    path("projects/<slug:slug>/splits/new/", views_split.split_new, name="split-new"),
    path(
        "projects/<slug:slug>/splits/<int:pk>/change/",
        views_split.split_change_view,
        name="split-change",
    ),
    path(
        "projects/<slug:slug>/splits/<int:pk>/stop/",
        views_split.split_stop_view,
        name="split-stop",
    ),
    path("demo/<slug:slug>/", views.demo, name="demo"),
    path("demo/<slug:slug>/new/", views.conversation_new, name="conversation-new"),
    path(CHAT, views.conversation, name="conversation"),
    path(f"{CHAT}send/", views.conversation_send, name="conversation-send"),
    path(f"{CHAT}turns/<int:turn>/again/", views.turn_again_view, name="turn-again"),
    path(f"{CHAT}choose/", views.conversation_choose_view, name="conversation-choose"),
    path(COMPARE, views_compare.compare, name="compare"),
    path(f"{COMPARE}new/", views_compare.comparison_new, name="comparison-new"),
    path(f"{COMPARE}<uuid:pk>/", views_compare.comparison, name="comparison"),
    path(
        f"{COMPARE}<uuid:pk>/<str:side>/answer/",
        views_compare.comparison_answer,
        name="comparison-answer",
    ),
    path(
        f"{COMPARE}<uuid:pk>/judge/", views_compare.comparison_judge_view, name="comparison-judge"
    ),
    path(
        f"{COMPARE}<uuid:pk>/withdraw/",
        views_compare.comparison_withdraw_view,
        name="comparison-withdraw",
    ),
    path("demo/<slug:slug>/completions/<int:pk>/vote/", views.demo_vote, name="demo-vote"),
    path("demo/<slug:slug>/completions/<int:pk>/undo/", views.demo_undo, name="demo-undo"),
    path("projects/<slug:slug>/api/", views_api.api_docs, name="api-docs"),
    path("me/", views_person.me, name="me"),
    path("me/export/", views_person.me_export, name="me-export"),
    path("me/erase/", views_person.me_erase, name="me-erase"),
    path("projects/<slug:slug>/leave/", views_person.me_leave, name="me-leave"),
    path(PERSON, views_person.person, name="person"),
    path(f"{PERSON}deactivate/", views_person.person_deactivate, name="person-deactivate"),
    path(f"{PERSON}reactivate/", views_person.person_reactivate, name="person-reactivate"),
    path(f"{PERSON}erase/", views_person.person_erase_view, name="person-erase"),
    path(
        "projects/<slug:slug>/api-people/erase/",
        views_person.api_person_erase,
        name="api-person-erase",
    ),
    path("projects/<slug:slug>/links/", views_share_links.share_links, name="share-links"),
    path(
        "projects/<slug:slug>/links/<int:pk>/revoke/",
        views_share_links.share_link_revoke,
        name="share-link-revoke",
    ),
    path(SHARED, views_shared.shared, name="shared"),
    path(f"{SHARED}send/", views_shared.shared_send, name="shared-send"),
    path(f"{SHARED}new/", views_shared.shared_new, name="shared-new"),
    path(f"{SHARED}turns/<int:turn>/again/", views_shared.shared_again, name="shared-again"),
    path(f"{SHARED}completions/<int:pk>/vote/", views_shared.shared_vote, name="shared-vote"),
    path(f"{SHARED}completions/<int:pk>/undo/", views_shared.shared_undo, name="shared-undo"),
]
