"""What the release and demo pages need to know."""

from django.db.models import Exists, OuterRef

from feedback_app.serving.models import Release
from feedback_app.training.models import Adapter


def adapters_to_release() -> list[Adapter]:
    """Gate winners of runs that release by themselves, which were never live; newest only.

    An older one that lost its turn to a newer one is not released after it.
    """
    newer = Adapter.objects.filter(project=OuterRef("project"), pk__gt=OuterRef("pk"))
    return list(
        Adapter.objects.usable()
        .filter(run__auto_release=True, gate_won=True)
        .exclude(Exists(Release.objects.filter(adapter=OuterRef("pk"))))
        .exclude(Exists(newer.filter(releases__isnull=False)))
        .exclude(Exists(newer.filter(run__auto_release=True, gate_won=True, discarded_at=None)))
        .select_related("project")
    )
