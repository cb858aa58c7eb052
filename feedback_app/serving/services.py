"""What can happen to releases and demo conversations."""

from collections.abc import Iterator

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.errors import BadRequest
from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.feedback.models_webhook import Event
from feedback_app.feedback.services import Message, audit
from feedback_app.feedback.webhooks.events import event_write
from feedback_app.serving.answering import answer_stream, streamed_store
from feedback_app.serving.client import Engine, EngineError, Sampling, Streamed
from feedback_app.serving.models import Conversation, Release, Turn
from feedback_app.training.models import Adapter

log = structlog.get_logger(__name__)

CANARY: list[Message] = [{"role": "user", "content": "Say hello in one short sentence."}]
MESSAGE_LIMIT = 8_000
TURN_LIMIT = 40


class PromotionLost(BadRequest):
    """Another promotion was faster; this one changed nothing."""


def release_promote(
    *, project: Project, adapter: Adapter | None, by: User | None, reason: str = ""
) -> Release:
    """Makes a version live: load → canary answers → flip → the old one drains and unloads.

    Where a base model has several engines, all of them load and answer before the flip; one that
    is down gets what is live before it is asked again (replicas.py).

    `adapter=None` is the base model. Raises EngineError or BadRequest; then nothing changed.
    Running streams finish on the version they began with.
    """
    if adapter is not None and adapter.discarded_at is not None:
        raise BadRequest(f"{adapter.name} was discarded: restore it first.")
    before = project.releases.filter(live=True).first()
    version = adapter.name if adapter else BASE_VERSION
    if project.live_version == version:
        raise BadRequest(f"{version} is live already.")
    engine = Engine(project)
    if adapter is not None:
        engine.load(adapter)
    canaries = engine.answers(
        CANARY, version=version, sampling=Sampling(max_tokens=12, temperature=0.0, top_p=1.0)
    )
    if not all(canary.text.strip() for canary in canaries):
        raise BadRequest(f"{version} did not answer the canary prompt: it was not released.")
    release = release_flip(project=project, adapter=adapter, before=before, by=by, reason=reason)
    if before is not None and before.adapter is not None:
        try:
            engine.unload(before.adapter.name)
        except EngineError as error:
            # it only holds memory; the next engine start forgets it
            log.warning("unload_failed", adapter=before.adapter.name, why=str(error))
    return release


def release_rollback(*, project: Project, by: User | None, reason: str = "") -> Release:
    """Promotes what was live before the present version; the base model if nothing was."""
    timeline = project.releases.select_related("adapter").order_by("-pk")
    if project.live_version == BASE_VERSION:
        raise BadRequest("The base model is live: there is nothing to go back from.")
    earlier = [
        release
        for release in timeline.filter(live=False)
        if release.version != project.live_version
        and (release.adapter is None or release.adapter.discarded_at is None)
    ]
    adapter = earlier[0].adapter if earlier else None
    return release_promote(project=project, adapter=adapter, by=by, reason=reason)


def release_flip(
    *,
    project: Project,
    adapter: Adapter | None,
    before: Release | None,
    by: User | None,
    reason: str,
) -> Release:
    """The atomic part: ends `before` and begins the new release, or raises PromotionLost."""
    lost = PromotionLost("Another version was released just now: look again before you release.")
    try:
        with transaction.atomic():
            now = timezone.now()
            ended = Release.objects.filter(project=project, live=True)
            if before is not None:
                ended = ended.filter(pk=before.pk)
                if not ended.update(live=False, until=now):
                    raise lost
            release = Release.objects.create(
                project=project, adapter=adapter, released_by=by, reason=reason[:200]
            )
            Project.objects.filter(pk=project.pk).update(live_version=release.version)
            audit(
                project=project, actor=by, action="release", target=release.version, reason=reason
            )
            event_write(
                project=project,
                event=Event.RELEASE_CHANGED,
                key=str(release.pk),
                data={
                    "version": release.version,
                    "before": before.version if before else BASE_VERSION,
                    "reason": reason,
                },
            )
    except IntegrityError as error:
        raise lost from error
    project.live_version = release.version
    return release


# -- the demo


def version_of(conversation: Conversation) -> str:
    """What answers this conversation now: the picked version, or whatever is live."""
    if conversation.choice == Conversation.LIVE:
        return conversation.project.live_version
    return conversation.choice


def conversation_choose(*, conversation: Conversation, choice: str) -> None:
    """Picks the version that answers from now on."""
    known = {Conversation.LIVE, BASE_VERSION, *version_names(conversation.project)}
    if choice not in known:
        raise BadRequest("This project has no such version.")
    conversation.choice = choice
    conversation.save(update_fields=["choice", "updated_at"])


def version_names(project: Project) -> list[str]:
    """Adapters that the demo may pick, newest first."""
    return list(project.adapters.usable().newest_first().values_list("name", flat=True))


def turn_begin(*, conversation: Conversation, text: str) -> Turn:
    """Adds what the user said. Raises BadRequest if it is empty, too long or one too many."""
    text = text.strip()
    if not text:
        raise BadRequest("Write something first.")
    if len(text) > MESSAGE_LIMIT:
        raise BadRequest(f"A message has at most {MESSAGE_LIMIT:,} characters.")
    with transaction.atomic():
        conversation = Conversation.objects.select_for_update().get(pk=conversation.pk)
        last = conversation.turns.aggregate(last=Max("position"))["last"]
        position = 0 if last is None else last + 1
        if position >= TURN_LIMIT:
            raise BadRequest("This conversation is full: start a new one.")
        if not conversation.title:
            conversation.title = text[:120]
        conversation.save()
        return Turn.objects.create(conversation=conversation, position=position, user_message=text)


def turn_again(*, turn: Turn, text: str | None = None) -> Turn:
    """Prepares the last turn for another answer, with another question if `text` is given."""
    if turn.conversation.turns.filter(position__gt=turn.position).exists():
        raise BadRequest("Only the last message can be answered again.")
    if text is not None:
        text = text.strip()
        if not text or len(text) > MESSAGE_LIMIT:
            raise BadRequest(f"A message has 1 to {MESSAGE_LIMIT:,} characters.")
        turn.user_message = text
    turn.completion = None
    turn.error = ""
    turn.save()
    return turn


def turn_messages(turn: Turn) -> list[Message]:
    """The conversation up to and with this turn's question."""
    earlier = (
        turn.conversation.turns.filter(position__lt=turn.position)
        .exclude(completion=None)
        .select_related("completion")
    )
    messages: list[Message] = []
    for past in earlier:
        messages.extend(past.as_messages())  # type: ignore[arg-type]
    messages.append({"role": "user", "content": turn.user_message})
    return messages


def turn_stream(*, turn: Turn) -> Iterator[str]:
    """Yields the answer's text as the engine writes it, then stores it as a Completion.

    Raises EngineError; the turn then says so and can be answered again.
    """
    conversation = turn.conversation
    messages = turn_messages(turn)
    version = version_of(conversation)

    def store(streamed: Streamed) -> None:
        with transaction.atomic():
            turn.completion = streamed_store(
                project=conversation.project, messages=messages, version=version, streamed=streamed
            )
            turn.save(update_fields=["completion"])

    return answer_stream(
        project=conversation.project,
        messages=messages,
        version=version,
        reader_id=conversation.user_id,
        store=store,
        fail=lambda why: Turn.objects.filter(pk=turn.pk).update(error=why),
    )
