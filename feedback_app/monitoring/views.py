"""Pages for load balancers and monitoring. None requires a sign-in."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from feedback_app.monitoring.access import is_operator
from feedback_app.monitoring.metrics import metrics_text
from feedback_app.monitoring.readiness import readiness


@login_not_required
def health(request: HttpRequest) -> HttpResponse:
    """Return that this process answers. Asks no database and no broker."""
    return JsonResponse({"status": "ok"})


@require_safe
@never_cache
@login_not_required
def ready(request: HttpRequest) -> HttpResponse:
    """Return which parts are ready; reasons only for operators."""
    parts, _ = readiness()
    all_ready = not any(parts.values())
    body: dict[str, object] = {
        "status": "ok" if all_ready else "not ok",
        "parts": {name: "not ok" if fault else "ok" for name, fault in parts.items()},
    }
    if is_operator(request):
        body["reasons"] = {name: fault for name, fault in parts.items() if fault}
    return JsonResponse(body, status=200 if all_ready else 503)


@require_safe
@never_cache
@login_not_required
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics for Prometheus; only operators may read them."""
    if not is_operator(request):
        return HttpResponse(
            "Send METRICS_TOKEN as a bearer token.\n", status=403, content_type="text/plain"
        )
    return HttpResponse(metrics_text(), content_type=CONTENT_TYPE_PLAIN_0_0_4)
