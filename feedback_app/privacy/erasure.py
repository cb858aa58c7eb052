"""Erasing a person: from one project, or with their account from all of them."""

import datetime as dt
from collections.abc import Iterable

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import ApiPerson, Membership, User
from feedback_app.accounts.sessions import sessions_end
from feedback_app.feedback.members.services import owners_hold, person_name
from feedback_app.feedback.models import Completion, ImportJob, Project, Prompt, Source, Vote
from feedback_app.privacy.votes import VotesErased, votes_erase
from feedback_app.serving.models import Comparison, Conversation, Turn
from feedback_app.training.models import Erasure, Run, SnapshotItem

#: An erasure that is not finished by then was broken off.
PATIENCE = dt.timedelta(minutes=2)


def projects_of(user: User) -> list[Project]:
    """Where the person is a member or has left something, in order."""
    traces = (
        ApiPerson.objects.filter(user=user, project=OuterRef("pk")),
        Membership.objects.filter(user=user, project=OuterRef("pk")),
        Vote.objects.filter(user=user, project=OuterRef("pk")),
        Conversation.objects.filter(user=user, project=OuterRef("pk")),
        Comparison.objects.filter(user=user, project=OuterRef("pk")),
        ImportJob.objects.filter(by=user, project=OuterRef("pk")),
    )
    wanted = Q()
    for trace in traces:
        wanted |= Q(Exists(trace))
    return list(Project.objects.filter(wanted).order_by("pk"))


def person_erase(*, user: User, by: User | None, project: Project | None = None) -> list[Erasure]:
    """Erases a person from `project`, or with their account from all. Raises UserError for the
    last owner of a project; then nothing has changed.

    Their votes leave the examples, their conversations go with the questions that only they asked.
    What they imported stays, without their name.
    """
    begun = erasures_begin(user=user, by=by, project=project)
    for erasure in begun:
        erasure_finish(erasure)
    if project is None:
        account_delete(user.pk)
    return begun


def erasures_begin(*, user: User, by: User | None, project: Project | None) -> list[Erasure]:
    """Shuts the person out and writes down what had used their votes, while that can be seen."""
    with transaction.atomic():
        projects = projects_of(user) if project is None else [project]
        for each in projects:
            owners_hold(each, without=user)
        if project is None:
            User.objects.filter(pk=user.pk).update(is_active=False)
            sessions_end(user)
        Membership.objects.filter(user=user, project__in=projects).delete()
        # one who erases themselves leaves no trace as the doer either
        doer = by if by is None or by.pk != user.pk else None
        return [
            erasure_begin(project=each, user=user, by=doer, account=project is None)
            for each in projects
        ]


def erasure_begin(*, project: Project, user: User, by: User | None, account: bool) -> Erasure:
    runs = runs_with(project=project, user=user)
    erasure = Erasure.objects.create(
        project=project, person=user.pk, account=account, by=by, runs=runs
    )
    names = ", ".join(erasure.adapter_names)
    reason = f"Their votes were used by {names}: train again to be without them." if names else ""
    audit(
        project=project,
        actor=by,
        action="person.erase",
        target=person_name(user),
        reason=reason,
    )
    return erasure


def runs_with(*, project: Project, user: User) -> list[int]:
    """Numbers of the runs that trained, or still will, on something this person had judged."""
    judged = SnapshotItem.objects.filter(
        snapshot=OuterRef("snapshot"),
        completion__votes__user=user,
        completion__votes__source__in=set(Source) - {Source.IMPORT},
        completion__votes__created_at__lte=OuterRef("snapshot__created_at"),
    )
    ended = (Run.Status.FAILED, Run.Status.CANCELLED)
    runs = project.runs.exclude(status__in=ended).filter(Exists(judged))
    return list(runs.order_by("number").values_list("number", flat=True))


def erasure_finish(erasure: Erasure) -> None:
    """Does the work of an erasure, or what is left of it."""
    row = Erasure.objects.filter(pk=erasure.pk)
    user = User.objects.filter(pk=erasure.person).first()

    def note(erased: VotesErased) -> None:
        row.update(
            votes=F("votes") + erased.votes,
            examples_gone=F("examples_gone") + erased.gone,
            examples_changed=F("examples_changed") + erased.changed,
        )

    if user is not None:
        votes_erase(user=user, project=erasure.project, note=note)
        words_erase(user=user, project=erasure.project)
    row.update(finished_at=timezone.now())
    erasure.refresh_from_db()


def words_erase(*, user: User, project: Project) -> None:
    """Deletes the person's conversations and comparisons in the project, with the questions that
    nobody else has asked and the answers to them."""
    of_project = {"project": project}
    conversations = Conversation.objects.filter(user=user, **of_project)
    comparisons = Comparison.objects.filter(user=user, **of_project)
    with transaction.atomic():
        answers = set(
            Turn.objects.filter(
                conversation__in=conversations, completion__isnull=False
            ).values_list("completion", flat=True)
        )
        for pair in comparisons.values_list("left", "right"):
            answers.update(pk for pk in pair if pk is not None)
        prompts = prompts_of_nobody_else(answers, project=project, user=user)
        comparisons.delete()
        conversations.delete()
        Prompt.objects.filter(pk__in=prompts).delete()


def prompts_of_nobody_else(answers: Iterable[int], *, project: Project, user: User) -> list[int]:
    """The prompts of these answers that came from the demo and that only this person has asked."""
    sibling = Completion.objects.filter(prompt=OuterRef("pk"))
    asked = Turn.objects.filter(completion=OuterRef("pk")).exclude(conversation__user=user)
    compared = Comparison.objects.filter(Q(left=OuterRef("pk")) | Q(right=OuterRef("pk"))).exclude(
        user=user
    )
    others = sibling.filter(Exists(asked) | Exists(compared))
    found = Prompt.objects.filter(
        project=project, source=Source.DEMO, completions__in=list(answers)
    ).exclude(Exists(others))
    return list(found.distinct().values_list("pk", flat=True))


def account_delete(pk: int) -> None:
    """The account itself, once nothing of the person is left to be erased."""
    with transaction.atomic():
        if not Erasure.objects.filter(person=pk, account=True, finished_at=None).exists():
            User.objects.filter(pk=pk).delete()


def erasures_resume() -> None:
    """Takes up what was broken off."""
    late = Erasure.objects.filter(finished_at=None, created_at__lt=timezone.now() - PATIENCE)
    for erasure in late.select_related("project"):
        erasure_finish(erasure)
        if erasure.account:
            account_delete(erasure.person)
