"""Where everything is."""

from django.urls import include, path, register_converter

from feedback_app.web.converters import IdConverter
from feedback_app.web.gallery import gallery

register_converter(IdConverter, "id")


urlpatterns = [
    path("", include("feedback_app.monitoring.urls")),
    path("", include("feedback_app.api.urls")),
    path("components/", gallery, name="components"),  # 404 unless DEBUG
    path("accounts/", include("feedback_app.accounts.urls")),
    path("", include("feedback_app.feedback.urls")),
    path("", include("feedback_app.training.urls")),
    path("", include("feedback_app.serving.urls")),
    path("", include("feedback_app.privacy.urls")),
]

handler403 = "feedback_app.web.responses.permission_denied"
handler500 = "feedback_app.web.responses.server_error"
