"""Where everything is."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path, register_converter

from feedback_app.web.converters import IdConverter
from feedback_app.web.gallery import gallery

register_converter(IdConverter, "id")


@login_not_required
def health(request: HttpRequest) -> HttpResponse:
    """For load balancers: this process answers. It asks no database and no broker."""
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("health", health, name="health"),
    path("", include("feedback_app.api.urls")),
    path("components/", gallery, name="components"),  # 404 unless DEBUG
    path("accounts/", include("feedback_app.accounts.urls")),
    path("", include("feedback_app.feedback.urls")),
    path("", include("feedback_app.training.urls")),
    path("", include("feedback_app.serving.urls")),
    path("", include("feedback_app.privacy.urls")),
]

handler500 = "feedback_app.web.responses.server_error"
