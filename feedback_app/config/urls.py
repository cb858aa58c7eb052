"""Where everything is."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path

from feedback_app.serving.data_api.api import data_api_urls
from feedback_app.serving.gateway.api import gateway_urls


@login_not_required
def health(request: HttpRequest) -> HttpResponse:
    """For load balancers: this process answers. It asks no database and no broker."""
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("health", health, name="health"),
    path("v1/", gateway_urls()),
    path("api/v1/", data_api_urls()),
    path("accounts/", include("allauth.urls")),
    path("", include("feedback_app.feedback.urls")),
    path("", include("feedback_app.training.urls")),
    path("", include("feedback_app.serving.urls")),
]
