"""Conversations without an engine."""

import datetime as dt
from typing import Any

from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Source, Verdict
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.serving.models import Conversation, Turn


def answer(project: Project, question: str, text: str, version: str = "base") -> Completion:
    return completion_create(
        project=project,
        prompt=prompt_get_or_create(
            project=project,
            messages=[{"role": "user", "content": question}],
            source=Source.DEMO,
        ),
        answer=Answer(text, version, "stop", None, None),
        source=Source.DEMO,
    )


def talk(
    project: Project, user: User, *questions: str, version: str = "base", **fields: Any
) -> Conversation:
    """Store a conversation with one answered turn for each question."""
    conversation = Conversation.objects.create(
        project=project, user=user, title=questions[0], **fields
    )
    parent = None
    for position, question in enumerate(questions):
        parent = Turn.objects.create(
            conversation=conversation,
            parent=parent,
            position=position,
            user_message=question,
            completion=answer(project, question, f"About {question}", version),
        )
    return conversation


def thumb(conversation: Conversation, verdict: str, at: int = 0) -> Completion:
    """Cast the owner's vote on the answer at a position."""
    turn = conversation.turns.select_related("completion__project", "completion__prompt").get(
        position=at
    )
    assert turn.completion is not None
    vote_cast(
        completion=turn.completion,
        verdict=Verdict(verdict),
        by=conversation.user,
        source=Source.DEMO,
    )
    return turn.completion


def age(conversation: Conversation, *, days: float) -> None:
    """Let the last message be so many days old."""
    then = timezone.now() - dt.timedelta(days=days)
    Conversation.objects.filter(pk=conversation.pk).update(updated_at=then)
