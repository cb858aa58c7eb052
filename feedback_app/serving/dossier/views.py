"""Download of a version's dossier."""

from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.serving.dossier.content import dossier_content
from feedback_app.serving.dossier.markdown import dossier_markdown
from feedback_app.serving.dossier.signed_file import dossier_sign, fingerprints
from feedback_app.training.models import Adapter
from feedback_app.web.forms import query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import page


@project_view(Role.ADMIN)
@page
def dossier(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Return the signed dossier of a version as a file."""
    query_strict(request, ())
    adapters = Adapter.objects.select_related("run__snapshot")
    adapter = get_object_or_404(adapters, project=project, name=name)
    adapter.project = adapter.run.project = project
    content = dossier_content(adapter)
    data = dossier_sign(content, dossier_markdown(content))
    if request.method == "GET":
        key = f"signed with key {fingerprints()[0]}"
        audit(project=project, actor=request.user, action="dossier.write", target=name, reason=key)
    return HttpResponse(
        data,
        content_type="application/json",
        headers={
            "Content-Disposition": f'attachment; filename="{name.replace("@", "-")}.dossier.json"'
        },
    )
