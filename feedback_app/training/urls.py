"""URLs of the training app."""

from django.urls import path

from feedback_app.training import views, views_run

RUN = "projects/<slug:slug>/runs/<int:number>/"
ADAPTER = "projects/<slug:slug>/adapters/<str:name>/"

urlpatterns = [
    path("projects/<slug:slug>/runs/", views.runs, name="runs"),
    path("projects/<slug:slug>/runs/plan/", views.run_plan_view, name="run-plan"),
    path("projects/<slug:slug>/runs/new/", views.run_request_view, name="run-request"),
    path("projects/<slug:slug>/schedule/", views.schedule, name="schedule"),
    path(RUN, views_run.run, name="run"),
    path(f"{RUN}live/", views_run.run_live, name="run-live"),
    path(f"{RUN}metrics/", views_run.run_metrics, name="run-metrics"),
    path(f"{RUN}misfits/<int:pk>/", views_run.misfit_send_back, name="misfit-send-back"),
    path(f"{RUN}cancel/", views_run.run_cancel_view, name="run-cancel"),
    path(f"{RUN}resume/", views_run.run_resume_view, name="run-resume"),
    path(f"{ADAPTER}discard/", views.adapter_discard_view, name="adapter-discard"),
    path(f"{ADAPTER}restore/", views.adapter_restore_view, name="adapter-restore"),
]
