"""Flagged items, and those that an admin has restored."""

from django.db.models import Prefetch

from feedback_app.db.bounded_count import LISTED
from feedback_app.feedback.models import CompletionQuerySet, Project, Skip

FLAGS = Skip.objects.filter(flag=True)


def flagged(project: Project) -> CompletionQuerySet:
    """Return the flagged completions, newest first, with their flags."""
    return _shown(project.completions.filter(flagged=True))


def restored(project: Project) -> CompletionQuerySet:
    """Return the completions whose flags an admin has lifted, newest first, with their flags; of
    the newest LISTED flagged ones."""
    flags = FLAGS.filter(completion__project=project).order_by("-completion")
    # read first: as a subquery it makes PostgreSQL look for a page among all completions
    ids = set(flags.values_list("completion", flat=True)[:LISTED])
    return _shown(project.completions.filter(pk__in=ids, flagged=False))


def _shown(rows: CompletionQuerySet) -> CompletionQuerySet:
    return (
        rows.select_related("prompt")
        .defer("token_ids", "prompt_token_ids")
        .prefetch_related(Prefetch("skips", FLAGS.select_related("user"), to_attr="flags"))
        .order_by("-pk")
    )
