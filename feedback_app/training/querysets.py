"""Named queries of the training app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from feedback_app.accounts.models import User

if TYPE_CHECKING:
    from feedback_app.feedback.models import Project
    from feedback_app.training.models import (  # noqa: F401 - the type parameters
        Adapter,
        BlindPair,
        Erasure,
        PairBatch,
        Run,
    )

#: People who skip a pair before it is left out: it may be one that nobody can judge.
SKIPS_TO_LEAVE_OUT = 2
UNJUDGED = Q(judged=0, seen__lt=SKIPS_TO_LEAVE_OUT)


class RunQuerySet(QuerySet["Run"]):
    def active(self) -> Self:
        return self.filter(status__in=["queued", "running", "evaluating"])

    def evaluated(self) -> Self:
        """Runs that are judged by the gate, unlike trials of a sweep that were not chosen."""
        return self.filter(evaluates=True)

    def newest_first(self) -> Self:
        return self.order_by("-number")

    def on_new_examples(self) -> Self:
        """Runs that took a snapshot of the examples of their time, unlike one after an erasure or
        without a group of votes, and whose version learned from it, unlike trials of a sweep."""
        return self.evaluated().exclude(trigger__in=["erasure", "without"])


class AdapterQuerySet(QuerySet["Adapter"]):
    def usable(self) -> Self:
        return self.filter(discarded_at=None)

    def newest_first(self) -> Self:
        return self.order_by("-pk")


class ErasureQuerySet(QuerySet["Erasure"]):
    def pending(self) -> Self:
        """Erasures that are done and of which a version is left that had used what was erased."""
        return self.filter(due_at__isnull=False, deleted_at=None, finished_at__isnull=False)


class PairBatchQuerySet(QuerySet["PairBatch"]):
    def open(self) -> Self:
        """Batches that take votes; those of a discarded version wait until it is restored."""
        return self.filter(end="", adapter__discarded_at=None)

    def undecided(self) -> Self:
        """Batches that have ended and are not in their version's gate report yet."""
        return self.exclude(end="").filter(decided_at=None)


class BlindPairQuerySet(QuerySet["BlindPair"]):
    def open(self) -> Self:
        """Pairs of open batches."""
        return self.filter(batch__end="", batch__adapter__discarded_at=None)

    def unjudged(self) -> Self:
        """Pairs that nobody has judged and fewer than SKIPS_TO_LEAVE_OUT people have skipped."""
        return self._with_counts().filter(UNJUDGED)

    def waiting_for(self, user: User, project: Project) -> Self:
        """Open pairs of a project that this person can judge and nobody has, oldest batch first."""
        return (
            self.open()
            .filter(batch__project=project)
            .exclude(_own(user))
            .unjudged()
            .order_by("batch", "position")
        )

    def open_for(self, user: User) -> Self:
        """Open pairs that this person may judge: nobody has, or they have judged or skipped them
        themselves."""
        return self.open()._with_counts().filter(Q(_own(user)) | UNJUDGED)

    def _with_counts(self) -> Self:
        return self.alias(
            judged=Count("votes", filter=~Q(votes__choice="skip")), seen=Count("votes")
        )


def _own(user: User) -> Exists:
    return Exists(user.pair_votes.filter(pair=OuterRef("pk")))
