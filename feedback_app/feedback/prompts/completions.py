"""Creating completions, and requesting and cancelling samplings."""

import hashlib
import json
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Max

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import (
    BASE_VERSION,
    Completion,
    Project,
    Prompt,
    Sampling,
    Source,
)
from feedback_app.web.errors import UserError


@dataclass(frozen=True)
class Answer:
    """An engine's answer, with its prompt and completion token ids."""

    text: str
    version: str
    finish_reason: str
    prompt_token_ids: list[int] | None
    token_ids: list[int] | None


def storable(text: str) -> str:
    """Return the text without NUL, which PostgreSQL cannot store and a model may write."""
    return text.replace("\x00", "\ufffd")


def completion_hash(*, prompt_hash: str, system_prompt: str, text: str) -> str:
    """Return the SHA-256 of a prompt and its answer, equal for duplicates."""
    canonical = json.dumps([prompt_hash, system_prompt, text], ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def version_number(version: str) -> int:
    """Return the number in an adapter's name, `<slug>@<n>`; 0 for base and imports."""
    _, _, number = version.rpartition("@")
    return int(number) if "@" in version and number.isdecimal() and len(number) < 10 else 0


def completion_create(
    *,
    project: Project,
    prompt: Prompt,
    answer: Answer,
    source: Source,
    sampling: Sampling | None = None,
    system_prompt: str | None = None,
    user_group: str = "",
    message_id: str = "",
) -> Completion:
    """Store an answer; sampled answers join the annotation queue, balanced by prompt.

    `system_prompt` is what the version was given, if not the project's; `user_group` is who the
    answer was for, `message_id` a product's own id of it.
    """
    position = queue_position(prompt) if sampling is not None else 0
    completion = completion_new(
        project=project,
        prompt=prompt,
        answer=answer,
        source=source,
        sampling=sampling,
        system_prompt=system_prompt,
        position=position,
    )
    completion.user_group, completion.message_id = user_group, message_id
    completion.save(force_insert=True)
    return completion


def queue_position(prompt: Prompt) -> int:
    """Return the place after a prompt's answers in the queue, which is balanced by prompt."""
    last = prompt.completions.filter(queued=True).aggregate(last=Max("queue_position"))["last"]
    return 0 if last is None else int(last) + 1


def completion_queue(completion: Completion) -> None:
    """Put a stored answer into the annotation queue."""
    completion.queued = True
    completion.queue_position = queue_position(completion.prompt)
    completion.save(update_fields=["queued", "queue_position"])


def completion_new(
    *,
    project: Project,
    prompt: Prompt,
    answer: Answer,
    source: Source,
    sampling: Sampling | None,
    system_prompt: str | None = None,
    position: int = 0,
) -> Completion:
    """Return an answer that is not stored yet; `position` is its place among its prompt's."""
    text = storable(answer.text)
    return Completion(
        project=project,
        prompt=prompt,
        text=text,
        content_hash=completion_hash(
            prompt_hash=prompt.content_hash, system_prompt=project.system_prompt, text=text
        ),
        version=answer.version,
        version_number=version_number(answer.version),
        topic=prompt.topic,
        system_prompt=project.system_prompt if system_prompt is None else system_prompt,
        prompt_token_ids=answer.prompt_token_ids,
        token_ids=answer.token_ids,
        finish_reason=answer.finish_reason,
        source=source,
        sampling=sampling,
        queued=sampling is not None,
        queue_position=position,
    )


def sampling_request(
    *, project: Project, answers_per_prompt: int = 2, version: str = BASE_VERSION
) -> Sampling:
    """Queue a sampling of every active prompt."""
    return Sampling.objects.create(
        project=project,
        version=version,
        answers_per_prompt=answers_per_prompt,
        total=project.prompts.asked().count() * answers_per_prompt,
    )


def sampling_cancel(*, sampling: Sampling, by: User) -> None:
    """End a waiting or running sampling; answers that were stored stay.

    The worker's claim is lost with it: it cancels its requests and stores nothing more. Raise
    UserError if the sampling has ended.
    """
    with transaction.atomic():
        active = Sampling.objects.filter(pk=sampling.pk, status__in=Sampling.ACTIVE)
        if not active.update(status=Sampling.Status.CANCELLED, error=""):
            raise UserError("This sampling has ended already.")
        audit(project=sampling.project, actor=by, action="sampling.cancel", target=sampling.version)
