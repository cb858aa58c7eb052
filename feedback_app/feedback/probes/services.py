"""Adding probes, retiring and restoring them."""

from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Probe, Project
from feedback_app.feedback.probes.patterns import pattern_faults
from feedback_app.feedback.prompts.services import Message, messages_check
from feedback_app.web.errors import UserError

MOST_ACTIVE = 200
#: Characters of all messages of a probe.
LONGEST_PROMPT = 20_000
LONGEST_NOTE = 200


def probe_add(
    *,
    project: Project,
    messages: Sequence[Message],
    kind: Probe.Kind,
    pattern: str,
    by: User,
    note: str = "",
    completion: Completion | None = None,
) -> Probe:
    """Add an active probe. `completion`: the answer of this project that it is made from.

    Raise UserError with every error in it, or if there are too many or the same one.
    """
    _check(messages, kind, pattern, note)
    with transaction.atomic():
        _lock(project)
        same = project.probes.filter(retired_at=None, kind=kind, pattern=pattern)
        if any(probe.messages == list(messages) for probe in same.only("messages")):
            raise UserError("The project has this probe already.")
        _room_check(project)
        probe = Probe.objects.create(
            project=project,
            messages=list(messages),
            kind=kind,
            pattern=pattern,
            note=note,
            created_by=by,
            completion=completion,
        )
        audit(project=project, actor=by, action="probe.add", target=str(probe))
    return probe


def probe_retire(*, probe: Probe, by: User) -> bool:
    """Let the gate check it no more. Return False if it is retired already."""
    with transaction.atomic():
        active = Probe.objects.filter(pk=probe.pk, retired_at=None)
        changed = active.update(retired_at=timezone.now())
        if changed:
            audit(project=probe.project, actor=by, action="probe.retire", target=str(probe))
    return bool(changed)


def probe_restore(*, probe: Probe, by: User) -> bool:
    """Make it active again. Return False if it is active already.

    Raise UserError if the project has as many as possible.
    """
    with transaction.atomic():
        _lock(probe.project)
        retired = Probe.objects.filter(pk=probe.pk, retired_at__isnull=False)
        if not retired.exists():
            return False
        _room_check(probe.project)
        retired.update(retired_at=None)
        audit(project=probe.project, actor=by, action="probe.restore", target=str(probe))
    return True


def _check(messages: Sequence[Message], kind: str, pattern: str, note: str) -> None:
    faults = []
    try:
        messages_check(messages)
    except UserError as error:
        faults.append(f"The prompt cannot be used: {error}.")
    else:
        texts = [message["content"] for message in messages]
        if sum(map(len, texts)) > LONGEST_PROMPT:
            faults.append(f"The prompt is too long: shorten it to {LONGEST_PROMPT:,} characters.")
        if any("\x00" in text for text in [*texts, note]):
            faults.append("Remove the NUL characters.")
    if kind not in Probe.Kind.values:
        faults.append(f"The kind must be one of: {', '.join(Probe.Kind.values)}.")
    faults += pattern_faults(kind, pattern)
    if len(note) > LONGEST_NOTE:
        faults.append(f"Shorten the note to {LONGEST_NOTE} characters.")
    if faults:
        raise UserError(" ".join(faults))


def _lock(project: Project) -> None:
    """Let nobody else add or restore probes of the project until the transaction ends."""
    Project.objects.select_for_update(no_key=True).only("pk").get(pk=project.pk)


def _room_check(project: Project) -> None:
    if project.probes.filter(retired_at=None).count() >= MOST_ACTIVE:
        raise UserError(
            f"A project has at most {MOST_ACTIVE} active probes: retire one that is no longer "
            "needed first."
        )
