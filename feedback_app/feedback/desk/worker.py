"""The service worker of the annotation page."""

from pathlib import Path

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

SCRIPT = Path(settings.BASE_DIR, "static", "js", "desk_worker.js")


@login_not_required
@require_safe
def desk_worker(request: HttpRequest) -> HttpResponse:
    """Return the script. Its address is no static file's: a worker serves pages below it only."""
    response = HttpResponse(SCRIPT.read_bytes(), content_type="text/javascript; charset=utf-8")
    response["Cache-Control"] = "no-cache"
    return response
