"""URLs of the serving app."""

from django.urls import path

from feedback_app.serving.comparisons import views as comparisons_views
from feedback_app.serving.conversation_log import views as log_views
from feedback_app.serving.demo import own_conversations
from feedback_app.serving.demo import views as demo_views
from feedback_app.serving.dossier.views import dossier
from feedback_app.serving.lineage import views as lineage_views
from feedback_app.serving.new_project.views import new_project
from feedback_app.serving.project_deletion import views as deletion_views
from feedback_app.serving.project_home import views as project_home_views
from feedback_app.serving.releases import views as releases_views
from feedback_app.serving.share_links import views as share_links_views
from feedback_app.serving.share_links.visitors import views as visitor_views
from feedback_app.serving.side_by_side import views as side_by_side_views
from feedback_app.serving.traffic_splits import views as traffic_splits_views
from feedback_app.serving.version_diff import views as version_diff_views

CHAT = "demo/<slug:slug>/c/<uuid:pk>/"
LINEAGE = "projects/<slug:slug>/adapters/<str:name>/lineage/"
CHANGES = "projects/<slug:slug>/adapters/<str:name>/changes/"
SHARED = "s/<str:secret>/"
LOG = "projects/<slug:slug>/conversations/"
COMPARE = "demo/<slug:slug>/compare/"

urlpatterns = [
    path("demo/<slug:slug>/answers/<id:pk>/copied/", demo_views.demo_copied, name="demo-copied"),
    path("new/", new_project, name="project-new"),
    path("deleted/", deletion_views.project_deletions, name="project-deletions"),
    path("deleted/<id:pk>/", deletion_views.project_deletion, name="project-deletion"),
    path("projects/<slug:slug>/delete/", deletion_views.project_delete_view, name="project-delete"),
    path("projects/<slug:slug>/", project_home_views.project_home, name="project-home"),
    path(
        "projects/<slug:slug>/history/<str:table>/",
        project_home_views.history_csv,
        name="history-csv",
    ),
    path("projects/<slug:slug>/releases/", releases_views.releases, name="releases"),
    path(
        "projects/<slug:slug>/adapters/<str:name>/release/", releases_views.release, name="release"
    ),
    path("projects/<slug:slug>/adapters/<str:name>/dossier/", dossier, name="dossier"),
    path(LINEAGE, lineage_views.lineage, name="lineage"),
    path(
        "projects/<slug:slug>/completions/<id:pk>/lineage/",
        lineage_views.completion_lineage,
        name="completion-lineage",
    ),
    path(
        "projects/<slug:slug>/runs/side-by-side/",
        side_by_side_views.side_by_side,
        name="runs-side-by-side",
    ),
    path(CHANGES, version_diff_views.version_diff, name="changes"),
    path(f"{CHANGES}progress/", version_diff_views.version_diff_progress, name="changes-progress"),
    path(f"{CHANGES}new/", version_diff_views.version_diff_new, name="changes-new"),
    path("projects/<slug:slug>/splits/new/", traffic_splits_views.split_new, name="split-new"),
    path(
        "projects/<slug:slug>/splits/<id:pk>/change/",
        traffic_splits_views.split_change_view,
        name="split-change",
    ),
    path(
        "projects/<slug:slug>/splits/<id:pk>/stop/",
        traffic_splits_views.split_stop_view,
        name="split-stop",
    ),
    path("demo/<slug:slug>/", demo_views.demo, name="demo"),
    path("demo/<slug:slug>/conversations/", own_conversations.conversations, name="conversations"),
    path("demo/<slug:slug>/new/", demo_views.conversation_new, name="conversation-new"),
    path(CHAT, demo_views.conversation, name="conversation"),
    path(f"{CHAT}send/", demo_views.conversation_send, name="conversation-send"),
    path(f"{CHAT}turns/<id:turn>/again/", demo_views.turn_again_view, name="turn-again"),
    path(f"{CHAT}turns/<id:turn>/show/", own_conversations.turn_show, name="turn-show"),
    path(f"{CHAT}rename/", own_conversations.conversation_rename_view, name="conversation-rename"),
    path(f"{CHAT}delete/", own_conversations.conversation_delete_view, name="conversation-delete"),
    path(f"{CHAT}settings/", own_conversations.conversation_settings, name="conversation-settings"),
    path(f"{CHAT}choose/", demo_views.conversation_choose_view, name="conversation-choose"),
    path(COMPARE, comparisons_views.compare, name="compare"),
    path(f"{COMPARE}new/", comparisons_views.comparison_new, name="comparison-new"),
    path(f"{COMPARE}<uuid:pk>/", comparisons_views.comparison, name="comparison"),
    path(
        f"{COMPARE}<uuid:pk>/<str:side>/answer/",
        comparisons_views.comparison_answer,
        name="comparison-answer",
    ),
    path(
        f"{COMPARE}<uuid:pk>/judge/",
        comparisons_views.comparison_judge_view,
        name="comparison-judge",
    ),
    path(
        f"{COMPARE}<uuid:pk>/withdraw/",
        comparisons_views.comparison_withdraw_view,
        name="comparison-withdraw",
    ),
    path("demo/<slug:slug>/completions/<id:pk>/vote/", demo_views.demo_vote, name="demo-vote"),
    path("demo/<slug:slug>/completions/<id:pk>/undo/", demo_views.demo_undo, name="demo-undo"),
    path("projects/<slug:slug>/links/", share_links_views.share_links, name="share-links"),
    path(
        "projects/<slug:slug>/links/<id:pk>/revoke/",
        share_links_views.share_link_revoke,
        name="share-link-revoke",
    ),
    path(LOG, log_views.conversation_log, name="conversation-log"),
    path(f"{LOG}export/", log_views.conversation_log_export, name="conversation-log-export"),
    path(f"{LOG}<uuid:pk>/", log_views.logged_conversation, name="logged-conversation"),
    path(
        f"{LOG}<uuid:pk>/turns/<id:turn>/flag/",
        log_views.logged_answer_flag,
        name="logged-answer-flag",
    ),
    path(
        f"{LOG}<uuid:pk>/turns/<id:turn>/queue/",
        log_views.logged_answer_queue,
        name="logged-answer-queue",
    ),
    path(SHARED, visitor_views.shared, name="shared"),
    path(f"{SHARED}send/", visitor_views.shared_send, name="shared-send"),
    path(f"{SHARED}new/", visitor_views.shared_new, name="shared-new"),
    path(f"{SHARED}turns/<id:turn>/again/", visitor_views.shared_again, name="shared-again"),
    path(f"{SHARED}turns/<id:turn>/show/", visitor_views.shared_show, name="shared-show"),
    path(f"{SHARED}completions/<id:pk>/vote/", visitor_views.shared_vote, name="shared-vote"),
    path(f"{SHARED}completions/<id:pk>/undo/", visitor_views.shared_undo, name="shared-undo"),
]
