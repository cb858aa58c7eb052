"""Branches of a conversation: its turns are a tree, of which one branch is shown.

The parent of a shown turn is the one at the position before; only turns on other branches need
their stored `parent`. So a conversation without branches needs none.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction

from feedback_app.serving.models import Conversation, Turn
from feedback_app.web.errors import UserError

#: Turns of all branches of a conversation.
BRANCHED_LIMIT = 200


@dataclass(frozen=True)
class Place:
    """Where a turn is among the turns that follow the same one: `number` of `count`, from 1."""

    number: int
    count: int
    before: Turn | None
    after: Turn | None


class Tree:
    """The turns of one conversation by their parents."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self.turns = {turn.pk: turn for turn in sorted(turns, key=lambda turn: turn.pk)}
        by_position = {t.position: t.pk for t in self.turns.values() if t.position is not None}
        self.parents = {
            pk: turn.parent_id if turn.position is None else by_position.get(turn.position - 1)
            for pk, turn in self.turns.items()
        }
        self.children: dict[int | None, list[Turn]] = {}
        for pk, parent in self.parents.items():
            self.children.setdefault(parent, []).append(self.turns[pk])

    def place(self, turn: Turn) -> Place | None:
        """Return the turn's place; None if nothing else follows the turn before it."""
        siblings = self.children[self.parents[turn.pk]]
        if len(siblings) == 1:
            return None
        at = next(n for n, sibling in enumerate(siblings) if sibling.pk == turn.pk)
        return Place(
            number=at + 1,
            count=len(siblings),
            before=siblings[at - 1] if at else None,
            after=siblings[at + 1] if at + 1 < len(siblings) else None,
        )

    def branch(self, turn: Turn) -> list[Turn]:
        """Return the branch through a turn: from the first turn on, then the newest ones."""
        found = [turn]
        while (parent := self.parents[found[0].pk]) is not None:
            found.insert(0, self.turns[parent])
        while children := self.children.get(found[-1].pk):
            found.append(children[-1])
        return found


def conversation_lock(conversation: Conversation) -> None:
    """Lock a conversation's turns until the transaction ends. Raises UserError if it is gone."""
    kept = Conversation.objects.select_for_update(no_key=True).kept()
    if not kept.filter(pk=conversation.pk).exists():
        raise UserError("This conversation was deleted.")


def branch_room(conversation: Conversation) -> None:
    """Raise UserError if a conversation has as many turns as its branches may have."""
    if conversation.turns.order_by("pk")[BRANCHED_LIMIT - 1 : BRANCHED_LIMIT].exists():
        raise UserError("This conversation has too many versions: start a new one.")


def branch_show(*, turn: Turn) -> None:
    """Show the branch through a turn. Its conversation goes on from the branch's last turn."""
    with transaction.atomic():
        conversation_lock(turn.conversation)
        tree = Tree(turn.conversation.turns.defer("user_message", "error"))
        if turn.pk not in tree.turns:
            raise UserError("This conversation was deleted.")
        turn.conversation.turns.update(position=None)  # no two turns at a position meanwhile
        positions = {shown.pk: number for number, shown in enumerate(tree.branch(turn))}
        for pk, changed in tree.turns.items():
            changed.parent_id = tree.parents[pk]
            changed.position = positions.get(pk)
        Turn.objects.bulk_update(tree.turns.values(), ["parent", "position"])
