"""Downloads of a project's examples."""

from tempfile import TemporaryFile

from django.http import FileResponse, HttpResponseBase, StreamingHttpResponse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.answers import page
from feedback_app.feedback.exporting import (
    CONTENT_TYPES,
    FORMATS,
    LINES,
    parquet_write,
    project_rows,
)
from feedback_app.feedback.forms import query_choice, query_strict
from feedback_app.feedback.models import Project
from feedback_app.feedback.services import audit
from feedback_app.htmx import HtmxHttpRequest


@project_view(Role.ADMIN)
@page
def examples_export(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """The examples as a file, streamed; who took them is written down."""
    query_strict(request, ("format",))
    chosen = query_choice(request, "format", FORMATS)
    if request.method == "GET":
        audit(project=project, actor=request.user, action="examples.export", target=chosen)
    name = f"{project.slug}-examples.{chosen}"
    rows = project_rows(project)
    if chosen == "parquet":
        # its directory is at the end of the file: it is written first, then sent
        file = TemporaryFile()  # noqa: SIM115 - the response closes it
        parquet_write(rows, file)
        file.seek(0)
        return FileResponse(
            file, as_attachment=True, filename=name, content_type=CONTENT_TYPES[chosen]
        )
    return StreamingHttpResponse(
        LINES[chosen](rows),
        content_type=CONTENT_TYPES[chosen],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
