"""URLs of the training app."""

from django.urls import path

from feedback_app.training.adapter_import import views as import_views
from feedback_app.training.explorer import views as explorer_views
from feedback_app.training.gate import views as gate_views
from feedback_app.training.gate.judge import views as judge_views
from feedback_app.training.gate.people import views as people_views
from feedback_app.training.influence import views as influence_views
from feedback_app.training.pushes import views as pushes_views
from feedback_app.training.registry import views as registry_views
from feedback_app.training.runs import views as runs_views
from feedback_app.training.schedules import views as schedules_views
from feedback_app.training.sweeps import views as sweeps_views

RUN = "projects/<slug:slug>/runs/<id:number>/"
SWEEP = "projects/<slug:slug>/sweeps/<id:number>/"
ADAPTER = "projects/<slug:slug>/adapters/<str:name>/"

urlpatterns = [
    path("projects/<slug:slug>/runs/", runs_views.runs, name="runs"),
    path("projects/<slug:slug>/runs/import/", import_views.adapter_import, name="adapter-import"),
    path("projects/<slug:slug>/runs/plan/", runs_views.run_plan_view, name="run-plan"),
    path("projects/<slug:slug>/runs/new/", runs_views.run_request_view, name="run-request"),
    path("projects/<slug:slug>/sweeps/", sweeps_views.sweeps, name="sweeps"),
    path("projects/<slug:slug>/sweeps/new/", sweeps_views.sweep_new, name="sweep-new"),
    path(SWEEP, sweeps_views.sweep, name="sweep"),
    path(f"{SWEEP}cancel/", sweeps_views.sweep_cancel_view, name="sweep-cancel"),
    path(f"{SWEEP}choose/", sweeps_views.sweep_choose_view, name="sweep-choose"),
    path("projects/<slug:slug>/schedule/", schedules_views.schedule, name="schedule"),
    path(
        "projects/<slug:slug>/schedule/settings/",
        schedules_views.schedule_settings,
        name="schedule-settings",
    ),
    path("projects/<slug:slug>/gate/", gate_views.gate_rules, name="gate-rules"),
    path(
        "projects/<slug:slug>/gate/preview/",
        gate_views.gate_rules_preview,
        name="gate-rules-preview",
    ),
    path("projects/<slug:slug>/gate/reset/", gate_views.gate_rules_reset, name="gate-rules-reset"),
    path("projects/<slug:slug>/gate/judge/", judge_views.gate_judge, name="gate-judge"),
    path(
        "projects/<slug:slug>/gate/judge/test/",
        judge_views.gate_judge_test,
        name="gate-judge-test",
    ),
    path(
        "projects/<slug:slug>/gate/judge/remove/",
        judge_views.gate_judge_remove,
        name="gate-judge-remove",
    ),
    path("projects/<slug:slug>/pairs/", people_views.pairs, name="pairs"),
    path("projects/<slug:slug>/pairs/<id:pk>/", people_views.pair, name="pair"),
    path("projects/<slug:slug>/pairs/<id:pk>/vote/", people_views.pair_vote, name="pair-vote"),
    path("projects/<slug:slug>/pairs/<id:pk>/undo/", people_views.pair_vote_undo, name="pair-undo"),
    path(f"{RUN}pairs/", people_views.run_pairs, name="run-pairs"),
    path(f"{RUN}pairs/close/", people_views.run_pairs_close, name="run-pairs-close"),
    path(RUN, runs_views.run, name="run"),
    path(f"{RUN}live/", runs_views.run_live, name="run-live"),
    path(f"{RUN}metrics/", runs_views.run_metrics, name="run-metrics"),
    path(f"{RUN}metrics/download/", runs_views.run_metrics_csv, name="run-metrics-csv"),
    path(f"{RUN}misfits/<id:pk>/", runs_views.misfit_send_back, name="misfit-send-back"),
    path(f"{RUN}examples/", explorer_views.run_examples, name="run-examples"),
    path(f"{RUN}cancel/", runs_views.run_cancel_view, name="run-cancel"),
    path(f"{RUN}resume/", runs_views.run_resume_view, name="run-resume"),
    path(f"{ADAPTER}influence/", influence_views.influence, name="influence"),
    path(
        f"{ADAPTER}influence/progress/",
        influence_views.influence_progress,
        name="influence-progress",
    ),
    path(f"{ADAPTER}influence/new/", influence_views.influence_new, name="influence-new"),
    path(f"{ADAPTER}influence/cancel/", influence_views.influence_stop, name="influence-cancel"),
    path(f"{ADAPTER}influence/train/", influence_views.influence_train, name="influence-train"),
    path(f"{ADAPTER}download/", registry_views.adapter_download, name="adapter-download"),
    path(f"{ADAPTER}push/", pushes_views.adapter_push, name="adapter-push"),
    path(f"{ADAPTER}discard/", registry_views.adapter_discard_view, name="adapter-discard"),
    path(f"{ADAPTER}restore/", registry_views.adapter_restore_view, name="adapter-restore"),
]
