"""URLs of the feedback app."""

from django.urls import path

from feedback_app.feedback import (
    views,
    views_export,
    views_gold,
    views_guidelines,
    views_import,
    views_invitation,
    views_people,
    views_project,
    views_quality,
    views_resolve,
    views_rules,
    views_tokens,
    views_webhook,
)

WEBHOOK = "projects/<slug:slug>/webhooks/<int:pk>/"

urlpatterns = [
    path("", views_project.home, name="home"),
    path("projects/<slug:slug>/annotate/", views.annotate, name="annotate"),
    path("projects/<slug:slug>/annotate/status/", views.annotate_status, name="annotate-status"),
    path("projects/<slug:slug>/completions/<int:pk>/vote/", views.vote, name="vote"),
    path("projects/<slug:slug>/completions/<int:pk>/undo/", views.vote_undo_view, name="vote-undo"),
    path("projects/<slug:slug>/completions/<int:pk>/skip/", views.skip, name="skip"),
    path("projects/<slug:slug>/examples/", views_project.examples, name="examples"),
    path(
        "projects/<slug:slug>/examples/export/",
        views_export.examples_export,
        name="examples-export",
    ),
    path("projects/<slug:slug>/import/", views_import.imports, name="imports"),
    path("projects/<slug:slug>/import/<int:pk>/", views_import.import_job, name="import-job"),
    path(
        "projects/<slug:slug>/import/<int:pk>/columns/",
        views_import.import_job_columns,
        name="import-columns",
    ),
    path(
        "projects/<slug:slug>/import/<int:pk>/start/",
        views_import.import_job_start,
        name="import-start",
    ),
    path(
        "projects/<slug:slug>/import/<int:pk>/stop/",
        views_import.import_job_stop,
        name="import-stop",
    ),
    path(
        "projects/<slug:slug>/import/<int:pk>/refused/",
        views_import.import_refusals,
        name="import-refusals",
    ),
    path("projects/<slug:slug>/settings/", views_project.project_settings, name="project-settings"),
    path("projects/<slug:slug>/guidelines/", views_guidelines.guidelines, name="guidelines"),
    path("projects/<slug:slug>/rules/", views_rules.rules, name="rules"),
    path("projects/<slug:slug>/quality/", views_quality.quality_page, name="quality"),
    path("projects/<slug:slug>/disagreements/", views_resolve.resolve, name="resolve"),
    path(
        "projects/<slug:slug>/completions/<int:pk>/decide/",
        views_resolve.resolve_decide,
        name="resolve-decide",
    ),
    path(
        "projects/<slug:slug>/completions/<int:pk>/undecide/",
        views_resolve.resolve_undo,
        name="resolve-undo",
    ),
    path(
        "projects/<slug:slug>/completions/<int:pk>/leave/",
        views_resolve.resolve_unask,
        name="resolve-unask",
    ),
    path("projects/<slug:slug>/gold/", views_gold.gold, name="gold"),
    path(
        "projects/<slug:slug>/completions/<int:pk>/gold/",
        views_gold.gold_mark_view,
        name="gold-mark",
    ),
    path(
        "projects/<slug:slug>/gold/<int:pk>/remove/",
        views_gold.gold_unmark_view,
        name="gold-unmark",
    ),
    path(
        "projects/<slug:slug>/pauses/<int:pk>/lift/",
        views_gold.pause_lift_view,
        name="pause-lift",
    ),
    path(
        "projects/<slug:slug>/pauses/<int:pk>/restore/",
        views_gold.votes_restore_view,
        name="votes-restore",
    ),
    path("projects/<slug:slug>/samplings/new/", views_project.sampling_new, name="sampling-new"),
    path("projects/<slug:slug>/tokens/", views_tokens.tokens, name="tokens"),
    path(
        "projects/<slug:slug>/tokens/<int:pk>/revoke/",
        views_tokens.token_revoke_view,
        name="token-revoke",
    ),
    path("projects/<slug:slug>/people/", views_people.people, name="people"),
    path(
        "projects/<slug:slug>/people/<int:pk>/role/",
        views_people.member_change_view,
        name="member-change",
    ),
    path(
        "projects/<slug:slug>/people/<int:pk>/remove/",
        views_people.member_remove_view,
        name="member-remove",
    ),
    path(
        "projects/<slug:slug>/invitations/<int:pk>/revoke/",
        views_people.invitation_revoke_view,
        name="invitation-revoke",
    ),
    path("invitations/<str:secret>/", views_invitation.invitation, name="invitation"),
    path("projects/<slug:slug>/webhooks/", views_webhook.webhooks, name="webhooks"),
    path(WEBHOOK, views_webhook.webhook_log, name="webhook"),
    path(f"{WEBHOOK}test/", views_webhook.webhook_test, name="webhook-test"),
    path(f"{WEBHOOK}pause/", views_webhook.webhook_pause, name="webhook-pause"),
    path(f"{WEBHOOK}resume/", views_webhook.webhook_resume, name="webhook-resume"),
    path(f"{WEBHOOK}remove/", views_webhook.webhook_remove_view, name="webhook-remove"),
    path(
        f"{WEBHOOK}deliveries/<int:delivery>/again/",
        views_webhook.delivery_again,
        name="delivery-again",
    ),
]
