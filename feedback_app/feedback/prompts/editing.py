"""Adding, changing, retiring and restoring prompts by hand."""

import re
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Prompt, Source
from feedback_app.feedback.prompts.completions import storable
from feedback_app.feedback.prompts.services import (
    Message,
    content_hash,
    messages_check,
    prompt_get_or_create,
    split_of,
)
from feedback_app.feedback.prompts.tools import with_tools
from feedback_app.web.errors import UserError

#: Prompts that are added at once, and characters of each; files are imported by a worker.
MOST_PASTED, LONGEST = 500, 20_000
SEPARATOR = re.compile(r"^---\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Pasted:
    """How many pasted prompts are new, and how many the project had already."""

    added: int
    known: int


def prompts_split(text: str) -> list[str]:
    """Return the prompts of a pasted text: one a line, or several lines each if lines of three
    hyphens separate them."""
    several = SEPARATOR.search(text)
    parts = SEPARATOR.split(text) if several else text.splitlines()
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def prompts_paste(*, project: Project, text: str, topic: str, by: User) -> Pasted:
    """Add the prompts of a text, each with one message. Raises UserError.

    A prompt that the project knows stays as it is, but one that came from a demo or a product is
    asked in samplings from now on.
    """
    texts = prompts_split(storable(text))
    if not texts:
        raise UserError("Write at least one prompt.")
    if len(texts) > MOST_PASTED:
        raise UserError(f"At most {MOST_PASTED} prompts at once: import a file with more.")
    if any(len(one) > LONGEST for one in texts):
        raise UserError(f"A prompt has at most {LONGEST:,} characters.")
    digests = {content_hash(messages): messages for messages in map(_message, texts)}
    with transaction.atomic():
        # additions of others wait, so that no prompt is stored twice
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        there = project.prompts.filter(content_hash__in=digests)
        known = set(there.values_list("content_hash", flat=True))
        there.exclude(source=Source.IMPORT).update(source=Source.IMPORT)
        fresh = Prompt.objects.bulk_create(
            Prompt(
                project=project,
                messages=messages,
                content_hash=digest,
                topic=topic,
                split=split_of(digest, project=project),
                source=Source.IMPORT,
            )
            for digest, messages in digests.items()
            if digest not in known
        )
        audit(project=project, actor=by, action="prompts.add", target=f"{len(fresh)} prompts")
    return Pasted(len(fresh), len(known))


def _message(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def prompt_edit(*, prompt: Prompt, text: str, topic: str, by: User) -> Prompt:
    """Change the topic, or the last message. Raises UserError.

    Answers belong to the text that they answer: another text is another prompt, and the old one is
    retired. Returns the prompt with this text.
    """
    text = storable(text.strip())
    if len(text) > LONGEST:
        raise UserError(f"A prompt has at most {LONGEST:,} characters.")
    with transaction.atomic():
        project = Project.objects.select_for_update(no_key=True).get(pk=prompt.project_id)
        prompt = project.prompts.get(pk=prompt.pk)  # another tab may have changed it
        if prompt.retired_at is not None:
            raise UserError("This prompt is retired: restore it before you change it.")
        if text != prompt.title.strip():
            if prompt.ends_with_tool:
                raise UserError(
                    "This prompt ends with the result of a tool, which belongs to its question: "
                    "import the conversation with the other text instead."
                )
            changed: list[Message] = [*prompt.messages[:-1], *_message(text)]
            messages = with_tools(changed, prompt.tools)
            messages_check(messages)
            if project.prompts.filter(content_hash=content_hash(messages)).exists():
                raise UserError("The project has a prompt with this text already.")
            _retire(prompt)
            new = prompt_get_or_create(
                project=project, messages=messages, source=Source.IMPORT, topic=topic
            )
            audit(project=project, actor=by, action="prompt.edit", target=f"{prompt.pk} → {new.pk}")
            return new
        if topic != prompt.topic:
            Prompt.objects.filter(pk=prompt.pk).update(topic=topic)
            # denormalised, for the filter of the queue
            Completion.objects.filter(prompt=prompt).update(topic=topic)
            audit(project=project, actor=by, action="prompt.topic", target=str(prompt.pk))
            prompt.topic = topic
    return prompt


def prompt_retire(*, prompt: Prompt, by: User) -> bool:
    """Stop asking a prompt; return False if it was retired already. Answers and votes stay."""
    with transaction.atomic():
        retired = _retire(prompt)
        if retired:
            audit(project=prompt.project, actor=by, action="prompt.retire", target=str(prompt.pk))
    return retired


def _retire(prompt: Prompt) -> bool:
    rows = Prompt.objects.active().filter(pk=prompt.pk)
    return bool(rows.update(retired_at=timezone.now()))


def prompt_restore(*, prompt: Prompt, by: User) -> bool:
    """Ask a retired prompt again; return False if it was not retired."""
    with transaction.atomic():
        rows = Prompt.objects.filter(pk=prompt.pk, retired_at__isnull=False)
        restored = bool(rows.update(retired_at=None))
        if restored:
            audit(project=prompt.project, actor=by, action="prompt.restore", target=str(prompt.pk))
    return restored
