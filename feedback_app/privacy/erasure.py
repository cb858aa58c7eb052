"""Erasing a person: from one project, or with their account from all of them."""

import datetime as dt
from collections.abc import Iterable

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, Subquery
from django.utils import timezone

from feedback_app.accounts.audit import audit, person_name
from feedback_app.accounts.models import (
    ApiPerson,
    ApiReceipt,
    AuditEvent,
    Invitation,
    Membership,
    User,
)
from feedback_app.accounts.sessions import sessions_end
from feedback_app.db.claims import Claim, ClaimLost
from feedback_app.feedback.members.services import (
    admin_rights_revoke,
    invitations_end,
    owners_hold,
)
from feedback_app.feedback.models import (
    Completion,
    Figures,
    FollowUp,
    ImportJob,
    Probe,
    Project,
    Prompt,
    Source,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.models.webhooks import Event, WebhookDelivery
from feedback_app.privacy.votes import VotesErased, votes_erase
from feedback_app.serving.models import Comparison, Conversation, Turn
from feedback_app.training.forgetting.gate_reports import questions_forget
from feedback_app.training.forgetting.snapshots import ENDED, failed_run_files_remove
from feedback_app.training.influence.services import influence_forget
from feedback_app.training.models import Erasure, PairVote, Run, SnapshotItem

log = structlog.get_logger(__name__)

ErasureClaim = Claim[Erasure]


def projects_of(user: User) -> list[Project]:
    """Return the projects where the person is a member or has left data, in order."""
    traces = (
        ApiPerson.objects.filter(user=user, project=OuterRef("pk")),
        Membership.objects.filter(user=user, project=OuterRef("pk")),
        Vote.objects.filter(user=user, project=OuterRef("pk")),
        Conversation.objects.filter(user=user, project=OuterRef("pk")),
        Comparison.objects.filter(user=user, project=OuterRef("pk")),
        ImportJob.objects.filter(by=user, project=OuterRef("pk")),
        PairVote.objects.filter(user=user, pair__batch__project=OuterRef("pk")),
    )
    wanted = Q()
    for trace in traces:
        wanted |= Q(Exists(trace))
    return list(Project.objects.filter(wanted).order_by("pk"))


def projects_touched(user: User) -> list[Project]:
    """Return the projects that an account is erased from: also those with nothing but votes that
    the person has undone, as a snapshot may have been taken before."""
    found = [project.pk for project in projects_of(user)]
    undone = VoteEvent.objects.filter(user=user).order_by().values("completion__project")
    return list(Project.objects.filter(Q(pk__in=found) | Q(pk__in=undone)).order_by("pk"))


def person_erase(*, user: User, by: User | None, project: Project | None = None) -> list[Erasure]:
    """Erase a person from `project`, or with their account from all projects.

    Their votes leave the examples, their conversations are deleted with the questions that only
    they asked. What they imported stays, without their name. Raises UserError for the last owner
    of a project; then nothing has changed.
    """
    claims = erasures_begin(user=user, by=by, project=project)
    for claim in claims:
        erasure_execute(claim)
    if project is None:
        account_delete(user.pk)
    return [claim.row for claim in claims]


def erasures_begin(*, user: User, by: User | None, project: Project | None) -> list[ErasureClaim]:
    """End the person's access and create the erasures, claimed by this process.

    The rows record which runs used the votes, which cannot be found out afterwards.
    """
    with transaction.atomic():
        projects = projects_touched(user) if project is None else [project]
        for each in projects:
            owners_hold(each, without=user)
        if project is None:
            User.objects.filter(pk=user.pk).update(is_active=False)
            sessions_end(user)
        Membership.objects.filter(user=user, project__in=projects).delete()
        invitations = Invitation.objects.filter(email=user.email)
        (invitations if project is None else invitations.filter(project=project)).delete()
        # a person who erases themselves is not recorded as the actor either
        actor = by if by is None or by.pk != user.pk else None
        for each in projects:
            invitations_end(each, made_by=user, but=[])
            admin_rights_revoke(project=each, user=user, by=actor)
        return [
            erasure_begin(project=each, user=user, by=actor, account=project is None)
            for each in projects
        ]


def erasure_begin(*, project: Project, user: User, by: User | None, account: bool) -> ErasureClaim:
    runs = runs_with(project=project, user=user)
    erasure = Erasure.objects.create(
        project=project,
        person=user.pk,
        account=account,
        by=by,
        runs=runs,
        due_at=due_after(runs),
        # claimed from the start, so that no worker takes it at the same time
        attempt=1,
        heartbeat_at=timezone.now(),
    )
    audit(
        project=project,
        actor=by,
        action="person.erase",
        target=person_name(user),
        reason=used_text(erasure),
    )
    return Claim(erasure, erasure.attempt)


def due_after(runs: list[int]) -> dt.datetime | None:
    """Return by when the versions of these runs are gone; None if there are none."""
    return timezone.now() + dt.timedelta(days=settings.ERASURE_DAYS) if runs else None


def used_text(erasure: Erasure) -> str:
    """Return which versions had used what was erased, and what becomes of them."""
    names = ", ".join(erasure.adapter_names)
    if erasure.due_at is None:
        return ""
    return (
        f"{names} had used it: what is live is trained again without it, and they are deleted "
        f"after {erasure.due_at:%d %B %Y}."
    )


def runs_with(*, project: Project, user: User) -> list[int]:
    """Return the numbers of the runs that used, or will use, answers that this person judged or
    followed up, or answers to questions that only they asked."""
    events = VoteEvent.objects.filter(
        completion=OuterRef("completion"),
        user=user,
        created_at__lte=OuterRef("snapshot__created_at"),
    )
    judged = (
        SnapshotItem.objects.filter(
            snapshot=OuterRef("snapshot"),
            completion__vote_events__user=user,
            completion__vote_events__source__in=set(Source) - {Source.IMPORT},
        )
        # a vote that was undone before counted for nothing; one that was undone later did
        .annotate(then=Subquery(events.order_by("-created_at", "-pk").values("verdict")[:1]))
        .filter(then__in=Verdict.values)
    )
    answers = answers_of(user=user, project=project)
    own = prompts_of_person_only(answers, project=project, user=user)
    asked = SnapshotItem.objects.filter(snapshot=OuterRef("snapshot"), completion__prompt__in=own)
    followed = SnapshotItem.objects.filter(
        snapshot=OuterRef("snapshot"), implicit=True, completion__in=answers
    )
    # an imported version learned from nothing here: the gate compared it on test examples
    learned = project.runs.exclude(status__in=ENDED).exclude(trigger=Run.Trigger.IMPORTED)
    runs = learned.filter(Exists(judged) | Exists(asked) | Exists(followed))
    return list(runs.order_by("number").values_list("number", flat=True))


def erasure_claim(erasure_id: int) -> ErasureClaim | None:
    """Claim an abandoned erasure; None if another worker has it or it is finished."""
    return Claim.take(Erasure.objects.select_related("project").filter(pk=erasure_id))


def erasure_execute(claim: ErasureClaim) -> None:
    """Do the work of an erasure, or the rest of it, unless another worker has taken it over."""
    erasure = claim.row
    try:
        # without this, a claim would go stale while the same person's other projects are erased
        if not claim.heartbeat():
            raise ClaimLost
        with claim.kept_alive():
            erasure_finish(claim)
    except ClaimLost:
        log.warning("erasure_claim_lost", erasure=erasure.pk)
    erasure.refresh_from_db()


def erasure_finish(claim: ErasureClaim) -> None:
    """Delete what is left of the person in the project. Raises ClaimLost."""
    erasure = claim.row

    def note(erased: VotesErased) -> None:
        written = claim.update(
            votes=F("votes") + erased.votes,
            examples_gone=F("examples_gone") + erased.gone,
            examples_changed=F("examples_changed") + erased.changed,
        )
        if not written:
            raise ClaimLost

    person = erasure.person or 0
    user = User.objects.filter(pk=person).first()
    if user is not None:
        votes_erase(user=user, project=erasure.project, note=note)
        corrections_erase(user=user, project=erasure.project)
        conversations_erase(user=user, project=erasure.project)
        names_erase(user=user, project=erasure.project)
        influence_forget(user=user, project=erasure.project)
    with transaction.atomic():
        # of two erasures of one account that end at once, the later one deletes the account
        User.objects.select_for_update().filter(pk=person).first()
        if not claim.update(finished_at=timezone.now()):
            raise ClaimLost
        if erasure.account:
            account_delete(person)


def corrections_erase(*, user: User, project: Project) -> None:
    """Delete the answers that the person has written in place of a model's."""
    with transaction.atomic():
        Completion.objects.filter(project=project, correction__user=user).delete()


def conversations_erase(*, user: User, project: Project) -> None:
    """Delete the person's conversations and comparisons in the project.

    The questions that nobody else has asked are deleted with the answers to them.
    """
    of_project = {"project": project}
    conversations = Conversation.objects.filter(user=user, **of_project)
    comparisons = Comparison.objects.filter(user=user, **of_project)
    with transaction.atomic():
        # a version that is being registered is found here, or finds the questions gone
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        answers = answers_of(user=user, project=project)
        prompts = prompts_of_person_only(answers, project=project, user=user)
        implicit = SnapshotItem.objects.filter(implicit=True, completion__in=answers)
        items = SnapshotItem.objects.filter(completion__prompt__in=prompts) | implicit
        failed_run_files_remove(items.values_list("snapshot", flat=True).distinct())
        implicit.delete()
        questions_forget(prompts)
        FollowUp.objects.filter(user=user, **of_project).delete()
        comparisons.delete()
        conversations.delete()
        Prompt.objects.filter(pk__in=prompts).delete()


def answers_of(*, user: User, project: Project) -> set[int]:
    """Return the ids of the answers in the person's conversations and comparisons."""
    turns = Turn.objects.filter(conversation__user=user, conversation__project=project)
    answers = set(turns.exclude(completion=None).values_list("completion", flat=True))
    comparisons = Comparison.objects.filter(user=user, project=project)
    for pair in comparisons.values_list("left", "right"):
        answers.update(pk for pk in pair if pk is not None)
    return answers


def prompts_of_person_only(answers: Iterable[int], *, project: Project, user: User) -> list[int]:
    """Return ids of the prompts of these answers that only this person has asked, in the demo or
    through a product. An answer without a turn was added by a program, or before gateway answers
    had turns."""
    sibling = Completion.objects.filter(prompt=OuterRef("pk"))
    asked = Turn.objects.filter(completion=OuterRef("pk")).exclude(conversation__user=user)
    compared = Comparison.objects.filter(Q(left=OuterRef("pk")) | Q(right=OuterRef("pk"))).exclude(
        user=user
    )
    added = Q(source=Source.API) & ~Q(Exists(Turn.objects.filter(completion=OuterRef("pk"))))
    others = sibling.filter(Exists(asked) | Exists(compared) | added)
    found = Prompt.objects.filter(
        project=project, source__in=(Source.DEMO, Source.API), completions__in=list(answers)
    ).exclude(Exists(others))
    return list(found.distinct().values_list("pk", flat=True))


def names_erase(*, user: User, project: Project) -> None:
    """Remove the person from the audit trail, stored answers of the API, events of webhooks, stored
    figures and the probes that they wrote, which stay."""
    Probe.objects.filter(project=project, created_by=user).update(created_by=None)
    entries = AuditEvent.objects.filter(project=project)
    # Earlier versions wrote names there. The name may be another member's too, so no number
    # replaces it.
    pauses = entries.filter(action__in=("pause.begin", "pause.lift"), target=str(user))
    pauses.update(target="", redacted=True)
    restores = ("votes.restore", "flag.restore")
    restored = entries.filter(action__in=restores, target__endswith=f" of {user}")
    restored.update(target="", redacted=True)
    entries.filter(actor=user).exclude(address="").update(address="", redacted=True)
    # they hold the number of the person's votes; a page asks for them again
    Figures.objects.filter(project=project).delete()
    ApiReceipt.objects.filter(
        token__project=project, answer__contains=f'"person":{user.pk},'
    ).delete()
    # sent or not: none is sent again
    WebhookDelivery.objects.filter(
        webhook__project=project,
        event=Event.VOTE_CAST,
        body__contains=f'"person": {user.pk}}}',
    ).delete()


def account_delete(pk: int) -> None:
    """Delete the account unless one of its erasures is unfinished.

    Addresses that projects' trails still have of it, also of deleted projects, go with it.
    """
    with transaction.atomic():
        if not Erasure.objects.filter(person=pk, account=True, finished_at=None).exists():
            entries = AuditEvent.objects.filter(actor=pk).exclude(address="")
            entries.update(address="", redacted=True)
            User.objects.filter(pk=pk).delete()
