"""Follow-ups of a product's users: from the requests that their product sends."""

import datetime as dt

from feedback_app.feedback.models import Completion, FollowUp
from feedback_app.serving.follow_ups.services import follow_up_record, question_followed
from feedback_app.serving.models import Turn

#: The same request once more within this time asks for another answer.
AGAIN = dt.timedelta(minutes=10)


def gateway_followed(turn: Turn) -> None:
    """Record what a new turn says about the answer before it, or about an earlier answer to the
    same messages. Call it in the answer's transaction."""
    completion, conversation = turn.completion, turn.conversation
    project = conversation.project
    if not project.follow_ups or completion is None:
        return
    question_followed(project=project, before=turn.parent, text=turn.user_message)
    earlier = (
        Turn.objects.filter(
            conversation__user=conversation.user_id,
            conversation__project=project,
            completion__prompt=completion.prompt_id,
            created_at__gte=turn.created_at - AGAIN,
            pk__lt=turn.pk,
        )
        .select_related("completion")
        .order_by("-pk")
        .first()
    )
    if earlier is not None and earlier.completion is not None:
        earlier.completion.project = project
        follow_up_record(
            completion=earlier.completion,
            user_id=conversation.user_id,
            kind=FollowUp.Kind.REGENERATED,
        )


def answer_stopped(completion: Completion) -> None:
    """Record that the product has closed the connection while the answer was generated."""
    if not completion.project.follow_ups:
        return
    turn = Turn.objects.filter(completion=completion).select_related("conversation").first()
    if turn is not None:
        follow_up_record(
            completion=completion,
            user_id=turn.conversation.user_id,
            kind=FollowUp.Kind.STOPPED,
        )
