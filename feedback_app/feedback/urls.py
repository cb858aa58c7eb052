"""URLs of the feedback app."""

from django.urls import path

from feedback_app.feedback.adjudication import views as adjudication_views
from feedback_app.feedback.audit_trail import views as audit_views
from feedback_app.feedback.desk import own_votes, practice
from feedback_app.feedback.desk import views as desk_views
from feedback_app.feedback.desk.worker import desk_worker
from feedback_app.feedback.examples import views as examples_views
from feedback_app.feedback.exports import views as exports_views
from feedback_app.feedback.flags import views as flags_views
from feedback_app.feedback.gold import views as gold_views
from feedback_app.feedback.guidelines import views as guidelines_views
from feedback_app.feedback.imports import views as imports_views
from feedback_app.feedback.members import views as members_views
from feedback_app.feedback.members.invitations import views as invitation_views
from feedback_app.feedback.notifications import views as notifications_views
from feedback_app.feedback.probes import views as probes_views
from feedback_app.feedback.projects import views as projects_views
from feedback_app.feedback.projects.rules import views as rules_views
from feedback_app.feedback.prompts import views as prompts_views
from feedback_app.feedback.quality import views as quality_views
from feedback_app.feedback.tokens import views as tokens_views
from feedback_app.feedback.webhooks import views as webhooks_views

WEBHOOK = "projects/<slug:slug>/webhooks/<id:pk>/"

urlpatterns = [
    path("", projects_views.home, name="home"),
    path("annotate-worker", desk_worker, name="annotate-worker"),
    path(
        "projects/<slug:slug>/archive/", projects_views.project_archive_view, name="project-archive"
    ),
    path(
        "projects/<slug:slug>/restore/", projects_views.project_restore_view, name="project-restore"
    ),
    path("projects/<slug:slug>/annotate/", desk_views.annotate, name="annotate"),
    path(
        "projects/<slug:slug>/annotate/status/", desk_views.annotate_status, name="annotate-status"
    ),
    path("projects/<slug:slug>/annotate/ahead/", desk_views.annotate_ahead, name="annotate-ahead"),
    path("projects/<slug:slug>/annotate/practice/", practice.practice, name="practice"),
    path(
        "projects/<slug:slug>/annotate/practice/again/",
        practice.practice_again,
        name="practice-again",
    ),
    path("projects/<slug:slug>/annotate/votes/", own_votes.own_votes, name="own-votes"),
    path(
        "projects/<slug:slug>/annotate/votes/<id:pk>/",
        own_votes.own_vote_change,
        name="own-vote-change",
    ),
    path("projects/<slug:slug>/completions/<id:pk>/vote/", desk_views.vote, name="vote"),
    path(
        "projects/<slug:slug>/completions/<id:pk>/undo/",
        desk_views.vote_undo_view,
        name="vote-undo",
    ),
    path("projects/<slug:slug>/completions/<id:pk>/skip/", desk_views.skip, name="skip"),
    path("projects/<slug:slug>/skips/undo/", desk_views.skips_undo_view, name="skips-undo"),
    path("projects/<slug:slug>/examples/", examples_views.examples, name="examples"),
    path(
        "projects/<slug:slug>/examples/export/",
        exports_views.examples_export,
        name="examples-export",
    ),
    path("projects/<slug:slug>/import/", imports_views.imports, name="imports"),
    path("projects/<slug:slug>/import/<id:pk>/", imports_views.import_job, name="import-job"),
    path(
        "projects/<slug:slug>/import/<id:pk>/columns/",
        imports_views.import_job_columns,
        name="import-columns",
    ),
    path(
        "projects/<slug:slug>/import/<id:pk>/start/",
        imports_views.import_job_start,
        name="import-start",
    ),
    path(
        "projects/<slug:slug>/import/<id:pk>/stop/",
        imports_views.import_job_stop,
        name="import-stop",
    ),
    path(
        "projects/<slug:slug>/import/<id:pk>/refused/",
        imports_views.import_refusals,
        name="import-refusals",
    ),
    path(
        "projects/<slug:slug>/settings/", projects_views.project_settings, name="project-settings"
    ),
    path("projects/<slug:slug>/guidelines/", guidelines_views.guidelines, name="guidelines"),
    path("projects/<slug:slug>/rules/", rules_views.rules, name="rules"),
    path("projects/<slug:slug>/quality/", quality_views.quality_page, name="quality"),
    path("projects/<slug:slug>/disagreements/", adjudication_views.resolve, name="resolve"),
    path(
        "projects/<slug:slug>/completions/<id:pk>/decide/",
        adjudication_views.resolve_decide,
        name="resolve-decide",
    ),
    path(
        "projects/<slug:slug>/completions/<id:pk>/undecide/",
        adjudication_views.resolve_undo,
        name="resolve-undo",
    ),
    path(
        "projects/<slug:slug>/completions/<id:pk>/leave/",
        adjudication_views.resolve_unask,
        name="resolve-unask",
    ),
    path("projects/<slug:slug>/flags/", flags_views.flags, name="flags"),
    path(
        "projects/<slug:slug>/completions/<id:pk>/flag/restore/",
        flags_views.flag_restore_view,
        name="flag-restore",
    ),
    path(
        "projects/<slug:slug>/completions/<id:pk>/flag/again/",
        flags_views.flag_again_view,
        name="flag-again",
    ),
    path(
        "projects/<slug:slug>/people/<id:pk>/flags/restore/",
        flags_views.flags_restore_view,
        name="flags-restore",
    ),
    path("projects/<slug:slug>/gold/", gold_views.gold, name="gold"),
    path(
        "projects/<slug:slug>/completions/<id:pk>/gold/",
        gold_views.gold_mark_view,
        name="gold-mark",
    ),
    path(
        "projects/<slug:slug>/gold/<id:pk>/remove/",
        gold_views.gold_unmark_view,
        name="gold-unmark",
    ),
    path(
        "projects/<slug:slug>/pauses/<id:pk>/lift/",
        gold_views.pause_lift_view,
        name="pause-lift",
    ),
    path(
        "projects/<slug:slug>/pauses/<id:pk>/restore/",
        gold_views.votes_restore_view,
        name="votes-restore",
    ),
    path("notifications/", notifications_views.notifications, name="notifications"),
    path(
        "projects/<slug:slug>/notifications/",
        notifications_views.notification_choice,
        name="notification-choice",
    ),
    path("projects/<slug:slug>/audit/", audit_views.audit_trail, name="audit"),
    path("projects/<slug:slug>/audit/export/", audit_views.audit_export, name="audit-export"),
    path("projects/<slug:slug>/prompts/", prompts_views.prompts, name="prompts"),
    path("projects/<slug:slug>/prompts/<id:pk>/", prompts_views.prompt, name="prompt"),
    path(
        "projects/<slug:slug>/prompts/<id:pk>/retire/",
        prompts_views.prompt_retire_view,
        name="prompt-retire",
    ),
    path(
        "projects/<slug:slug>/prompts/<id:pk>/restore/",
        prompts_views.prompt_restore_view,
        name="prompt-restore",
    ),
    path("projects/<slug:slug>/probes/", probes_views.probes, name="probes"),
    path(
        "projects/<slug:slug>/probes/<id:pk>/retire/",
        probes_views.probe_retire_view,
        name="probe-retire",
    ),
    path(
        "projects/<slug:slug>/probes/<id:pk>/restore/",
        probes_views.probe_restore_view,
        name="probe-restore",
    ),
    path("projects/<slug:slug>/samplings/new/", projects_views.sampling_new, name="sampling-new"),
    path(
        "projects/<slug:slug>/samplings/<id:pk>/cancel/",
        projects_views.sampling_cancel_view,
        name="sampling-cancel",
    ),
    path("projects/<slug:slug>/tokens/", tokens_views.tokens, name="tokens"),
    path(
        "projects/<slug:slug>/tokens/<id:pk>/revoke/",
        tokens_views.token_revoke_view,
        name="token-revoke",
    ),
    path("projects/<slug:slug>/people/", members_views.people, name="people"),
    path(
        "projects/<slug:slug>/people/<id:pk>/role/",
        members_views.member_change_view,
        name="member-change",
    ),
    path(
        "projects/<slug:slug>/people/<id:pk>/remove/",
        members_views.member_remove_view,
        name="member-remove",
    ),
    path(
        "projects/<slug:slug>/invitations/<id:pk>/revoke/",
        members_views.invitation_revoke_view,
        name="invitation-revoke",
    ),
    path("invitations/<str:secret>/", invitation_views.invitation, name="invitation"),
    path("projects/<slug:slug>/webhooks/", webhooks_views.webhooks, name="webhooks"),
    path(WEBHOOK, webhooks_views.webhook_log, name="webhook"),
    path(f"{WEBHOOK}test/", webhooks_views.webhook_test, name="webhook-test"),
    path(f"{WEBHOOK}pause/", webhooks_views.webhook_pause, name="webhook-pause"),
    path(f"{WEBHOOK}resume/", webhooks_views.webhook_resume, name="webhook-resume"),
    path(f"{WEBHOOK}remove/", webhooks_views.webhook_remove_view, name="webhook-remove"),
    path(
        f"{WEBHOOK}deliveries/<id:delivery>/again/",
        webhooks_views.delivery_again,
        name="delivery-again",
    ),
]
