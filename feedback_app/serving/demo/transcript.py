"""The turns of a conversation as the demo and a share link's page show them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Correction, Verdict, Vote
from feedback_app.serving.demo.branches import Tree
from feedback_app.serving.models import Conversation, Turn


@dataclass(frozen=True)
class Links:
    """The URLs of a turn's thumbs and of its 'Try again'."""

    vote: str
    undo: str
    again: str
    #: URL of the branch through another turn, with 0 for its number
    show: str = ""
    #: whether the person may write what the answer should have been
    corrects: bool = False


def shown_turns(
    conversation: Conversation, *, of: User, links: Callable[[Turn], Links]
) -> list[Turn]:
    """Return the branch that is shown, with what `with_votes` and `with_branches` add."""
    turns = conversation.turns.shown().select_related("completion")
    shown = with_votes(
        turns.defer("completion__token_ids", "completion__prompt_token_ids"), of=of, links=links
    )
    return with_branches(shown, conversation)


def with_branches(turns: list[Turn], conversation: Conversation) -> list[Turn]:
    """Add the addresses of the turns beside each one, for the arrows below it."""
    others = list(
        conversation.turns.filter(position=None).only("conversation", "parent", "position")
    )
    if not others:  # most have no branches
        return turns
    tree = Tree([*conversation.turns.shown().only("conversation", "parent", "position"), *others])
    for turn in turns:
        place = tree.place(tree.turns[turn.pk])
        turn.place = place  # type: ignore[attr-defined]
        if place is None:
            continue
        url: str = turn.links.show  # type: ignore[attr-defined]
        for name, other in (("before_url", place.before), ("after_url", place.after)):
            setattr(turn, name, url.replace("/turns/0/", f"/turns/{other.pk}/") if other else "")
    return turns


def with_votes(
    turns: Iterable[Turn], *, of: User, links: Callable[[Turn], Links], before: str = ""
) -> list[Turn]:
    """Return the turns with what the page shows of them.

    Each gets `links`; `mine` and `correction`, this person's vote on its answer and what they wrote
    in its place, or None; and `new_version`, set where the version differs from that of the turn
    before; `before` is the version ahead of the first.
    """
    turns = list(turns)
    ids = [turn.completion_id for turn in turns if turn.completion_id]
    mine = {vote.completion_id: vote for vote in Vote.objects.filter(user=of, completion__in=ids)}
    downs = [pk for pk, vote in mine.items() if vote.verdict == Verdict.DOWN]
    # without downs Django answers this without a query
    corrections = Correction.objects.filter(user=of, original__in=downs, withdrawn_at=None)
    corrected = dict(corrections.values_list("original_id", "completion__text"))
    for turn in turns:
        turn.correction = corrected.get(turn.completion_id or 0)  # type: ignore[attr-defined]
        turn.links = links(turn)  # type: ignore[attr-defined]
        turn.mine = mine.get(turn.completion_id or 0)  # type: ignore[attr-defined]
        version = turn.completion.version if turn.completion else before
        turn.new_version = version if before and version != before else ""  # type: ignore[attr-defined]
        before = version
    return turns
