"""Services of traffic splits: started, watched at every tick, ended by the test or by a person.

The test counts one vote per person, the first, as of a minute after it was cast: enough time to
undo a mistake. It assumes independent votes. Those of one person are not, so ten of them weigh as
much as one, in whatever number of conversations. The first one is taken because it is fixed before
the result is known: a test that may be read at any time needs counted votes that are not
rewritten. A person's mean is rewritten by each vote, and is neither up nor down. The side of the
first vote was drawn at random like any other. Later changes still change the example of the vote.

The visitors of a share link are one person, because one reader can open it in many browsers.
People of a product are identified by the names that it sends; a token without them is one person.
"""

import datetime as dt

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Verdict, Vote
from feedback_app.serving.engine.client import Engine, EngineError
from feedback_app.serving.models import Assignment, TrafficSplit
from feedback_app.serving.releases.services import gate_check, release_promote, version_answers
from feedback_app.serving.stats.two_rates import Reading, SplitVote, read
from feedback_app.serving.traffic_splits.assignments import RUNNING, split_close
from feedback_app.training.models import Adapter
from feedback_app.training.stats.sequential import State
from feedback_app.web.errors import UserError
from feedback_app.web.text.plurals import number_of

log = structlog.get_logger(__name__)

SETTLE = dt.timedelta(minutes=1)


def split_start(
    *,
    project: Project,
    adapter: Adapter,
    percent: int,
    by: User,
    auto_promote: bool = False,
    auto_stop: bool = True,
) -> TrafficSplit:
    """Send `percent` of the conversations that begin from now on to `adapter`.

    The candidate is loaded and answers on every engine first. Raises UserError or EngineError;
    then nothing changed.
    """
    if adapter.discarded_at is not None:
        raise UserError(f"{adapter.name} was discarded: restore it first.")
    if project.live_version == adapter.name:
        raise UserError(f"{adapter.name} is live already: choose another candidate.")
    percent_check(percent)
    if auto_promote:
        gate_check(adapter)
    taken = UserError("A split is running already: end it before you start another.")
    if project.traffic_splits.filter(status=RUNNING).exists():
        raise taken
    version_answers(project=project, adapter=adapter)
    try:
        with transaction.atomic():
            now_live = Project.objects.select_for_update().get(pk=project.pk).live_version
            if now_live == adapter.name:
                raise UserError(f"{adapter.name} went live just now.")
            split = TrafficSplit.objects.create(
                project=project,
                candidate=adapter,
                live_version=now_live,
                percent=percent,
                auto_promote=auto_promote,
                auto_stop=auto_stop,
                started_by=by,
            )
            audit(project=project, actor=by, action="split.start", target=str(split))
    except IntegrityError as error:
        raise taken from error
    return split


def percent_check(percent: int) -> None:
    if not 1 <= percent <= 99:
        raise UserError("Send 1 to 99 % to the candidate.")


def split_change(
    *, split: TrafficSplit, percent: int, auto_promote: bool, auto_stop: bool, by: User
) -> None:
    """Change the split for conversations that begin from now on. Raises UserError if it is over."""
    percent_check(percent)
    if auto_promote:
        gate_check(split.candidate)
    with transaction.atomic():
        changed = TrafficSplit.objects.filter(pk=split.pk, status=RUNNING).update(
            percent=percent, auto_promote=auto_promote, auto_stop=auto_stop
        )
        if not changed:
            raise UserError("This split has ended.")
        audit(
            project=split.project,
            actor=by,
            action="split.change",
            target=f"{percent} % to {split.candidate.name}",
        )


def split_stop(
    *,
    split: TrafficSplit,
    by: User | None,
    reason: str = "",
    status: TrafficSplit.Status = TrafficSplit.Status.STOPPED,
) -> None:
    """End a split; its conversations continue with the live version. Raises UserError if over."""
    with transaction.atomic():
        running = TrafficSplit.objects.select_for_update().filter(pk=split.pk, status=RUNNING)
        if not running.exists():
            raise UserError("This split has ended already.")
        split_close(project=split.project, status=status, by=by, reason=reason)
    candidate_unload(split)


def candidate_unload(split: TrafficSplit) -> None:
    """Unload a candidate that is not live from the engines."""
    live = Project.objects.filter(pk=split.project_id, live_version=split.candidate.name)
    if live.exists():
        return
    try:
        Engine(split.project).unload(split.candidate.name)
    except EngineError as error:
        # it only uses memory; the demo loads it again when a person chooses it
        log.warning("unload_failed", adapter=split.candidate.name, why=str(error))


# -- the test


def voter_of(user_id: int, link_id: int | None) -> str:
    """Return who counts as one person: a user, or all visitors of a share link."""
    return f"user-{user_id}" if link_id is None else f"link-{link_id}"


def votes_count(*, split: TrafficSplit, now: dt.datetime | None = None) -> int:
    """Count the first vote of each person that is old enough and not set aside; return how many."""
    settled = (now or timezone.now()) - SETTLE
    assignment = "completion__assignment_answer__assignment"
    votes = (
        Vote.objects.standing()
        .filter(
            **{f"{assignment}__split": split, f"{assignment}__voter": ""}, created_at__lte=settled
        )
        .order_by("created_at", "pk")
        .values_list(assignment, "verdict", "user", "user__share_visitor__link")
    )
    if not votes.exists():
        return 0
    with transaction.atomic():
        # of two processes that count at once the second finds nothing left
        TrafficSplit.objects.select_for_update().get(pk=split.pk)
        before = split.assignments.exclude(counted=None)
        place = first = before.aggregate(last=Max("counted"))["last"] or 0
        voters = set(before.values_list("voter", flat=True))
        seen: dict[int, Assignment] = {}
        for pk, verdict, user, link in votes.all():
            voter = voter_of(user, link)
            if voter in voters:
                # looked at for good: its conversation is not read again at every tick
                seen.setdefault(pk, Assignment(pk=pk, voter=voter))
            elif pk not in seen or seen[pk].counted is None:
                place += 1
                voters.add(voter)
                seen[pk] = Assignment(pk=pk, voter=voter, verdict=verdict, counted=place)
        Assignment.objects.bulk_update(
            seen.values(), ["voter", "verdict", "counted"], batch_size=500
        )
    return place - first


def split_read(split: TrafficSplit) -> Reading:
    """Return the test over the counted votes, in the order in which they were counted."""
    counted = split.assignments.exclude(counted=None).order_by("counted")
    rows = counted.values_list("candidate", "verdict", "percent")
    return read(
        SplitVote(candidate, verdict == Verdict.UP, percent) for candidate, verdict, percent in rows
    )


def split_watch(*, split: TrafficSplit, now: dt.datetime | None = None) -> None:
    """Count votes, read the test, and promote or stop the candidate if so configured.

    Raises EngineError or UserError if a promotion fails; the next tick tries again.
    """
    if split.candidate.discarded_at is not None:
        split_stop(split=split, by=None, reason=f"{split.candidate.name} was discarded.")
        return
    if not votes_count(split=split, now=now) and not (split.auto_promote or split.auto_stop):
        return
    state = split_read(split).state
    counted = split.assignments.exclude(counted=None).count()
    people = number_of(counted, "person", "people")
    if state == State.BETTER and split.auto_promote and split.candidate.gate_won:
        release_promote(
            project=split.project,
            adapter=split.candidate,
            by=None,
            reason=f"It earned more thumbs up than {split.live_version}, from {people}.",
        )
    if state == State.WORSE and split.auto_stop:
        split_stop(
            split=split,
            by=None,
            status=TrafficSplit.Status.WORSE,
            reason=f"It earned fewer thumbs up than {split.live_version}, from {people}.",
        )
