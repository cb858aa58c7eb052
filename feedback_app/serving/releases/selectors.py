"""Which releases are due."""

from django.db.models import Exists, OuterRef, QuerySet

from feedback_app.serving.models import Release
from feedback_app.training.models import Adapter


def adapters_to_release() -> QuerySet[Adapter]:
    """Return gate winners of runs with automatic release that were never live; newest only.
    Those of archived projects wait.

    An older winner is not released after a newer one.
    """
    newer = Adapter.objects.filter(project=OuterRef("project"), pk__gt=OuterRef("pk"))
    return (
        Adapter.objects.usable()
        .filter(run__auto_release=True, gate_won=True, project__archived_at=None)
        .exclude(Exists(Release.objects.filter(adapter=OuterRef("pk"))))
        .exclude(Exists(newer.filter(releases__isnull=False)))
        .exclude(Exists(newer.filter(run__auto_release=True, gate_won=True, discarded_at=None)))
        .select_related("project")
    )
