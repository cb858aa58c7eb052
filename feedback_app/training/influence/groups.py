"""Groups of the votes that a snapshot's training examples follow from.

Without a group's votes an example has another label, another weight, or is gone. What the version
would be without them is estimated from the influence of each example under both labels
(trainer/influence/estimate.py): the loss on validation examples rises by what learning from the
example had lowered it, and falls by what learning from it as it would be lowers it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from django.db.models import QuerySet

from feedback_app.feedback.examples.rule import values_of_votes
from feedback_app.feedback.models import Completion, Split, VoteEvent
from feedback_app.training.forgetting.snapshots import (
    decided_before,
    set_aside_since,
    votes_counted,
)
from feedback_app.training.models import Snapshot, SnapshotItem

#: What votes are grouped by, as in the URL, and what one group of each is called.
KINDS = {"person": "person", "topic": "topic", "source": "source", "week": "week"}
CHUNK = 500
#: Groups of a kind that a report keeps.
MOST_GROUPS = 1_000


@dataclass
class Group:
    """One group: how many votes and examples, and by how much of all examples' influence the
    validation loss would be higher without it (negative: lower). `run` is the number of the run
    that was trained without it."""

    key: str
    votes: int = 0
    examples: int = 0
    estimate: float = 0.0
    run: int | None = None


@dataclass(frozen=True)
class Result:
    """What a report stores. `points` are the steps of the run at which gradients were taken;
    `measured` of `examples` training examples were."""

    points: list[str]
    validation_examples: int
    measured: int
    examples: int
    groups: dict[str, list[Group]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def stored(cls, raw: Mapping[str, Any]) -> "Result":
        groups = {kind: [Group(**row) for row in rows] for kind, rows in raw["groups"].items()}
        return cls(**{**raw, "groups": groups})


@dataclass(frozen=True)
class Ingredient:
    """A training example with the votes that it follows from."""

    item: SnapshotItem
    votes: Sequence[VoteEvent]

    def keys(self, kind: str) -> set[str]:
        """Return the groups that its votes are in."""
        return {key_of(vote, self.item.completion, kind) for vote in self.votes}

    def without(self, kind: str, key: str) -> tuple[bool, float] | None:
        """Return the label and weight that it has without a group's votes; None if it is gone."""
        text = self.item.completion.text
        others = [v.verdict for v in self.votes if key_of(v, self.item.completion, kind) != key]
        values = values_of_votes(others, text=text)
        if values is None:
            return None
        # what multiplies the weight, such as the reliability of people, stays
        now = values_of_votes([vote.verdict for vote in self.votes], text=text)
        factor = self.item.weight / now.weight if now is not None else self.item.weight
        return values.desirable, values.weight * factor


def key_of(vote: VoteEvent, completion: Completion, kind: str) -> str:
    """Return the group of a vote; empty for an answer without a topic."""
    if kind == "person":
        return str(vote.user_id)
    if kind == "topic":
        return completion.topic
    if kind == "source":
        return vote.source
    year, week, _ = vote.created_at.isocalendar()
    return f"{year}-W{week:02}"


def ingredients(snapshot: Snapshot, items: Iterable[SnapshotItem]) -> Iterator[Ingredient]:
    """Yield examples with the votes of then, without those that an admin's verdict decided."""
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        completions = [item.completion for item in chunk]
        events: dict[int, list[VoteEvent]] = defaultdict(list)
        found = VoteEvent.objects.filter(completion__in=completions)
        for event in found.order_by("created_at", "pk"):
            events[event.completion_id].append(event)
        aside = set_aside_since(completions)
        for item in chunk:
            votes = votes_counted(events[item.completion_id], snapshot, aside)
            if votes and not decided_before(item.completion, snapshot):
                yield Ingredient(item, list(votes.values()))


def training_items(snapshot: Snapshot) -> QuerySet[SnapshotItem]:
    """Return the training examples with what `ingredients` reads, in order."""
    return (
        snapshot.items.filter(split=Split.TRAIN)
        .select_related("completion__adjudication", "completion__gold_item")
        .defer("completion__token_ids", "completion__prompt_token_ids")
        .order_by("completion_id")
    )


#: The influence of an example's completion under a label, per unit of weight.
InfluenceOf = Callable[[int, bool], float]


def groups_of(
    found: Iterable[Ingredient], influence: InfluenceOf, *, all_influence: float
) -> dict[str, list[Group]]:
    """Return the groups of every kind, those without which the version would be best first.

    `all_influence` is the sum of the sizes of all examples' influence; estimates are shares of it.
    """
    groups: dict[str, dict[str, Group]] = {kind: {} for kind in KINDS}
    for each in found:
        item = each.item
        now = item.weight * influence(item.completion_id, item.desirable)
        for kind, known in groups.items():
            for key in each.keys(kind):
                group = known.setdefault(key, Group(key))
                votes = sum(key_of(v, item.completion, kind) == key for v in each.votes)
                then = each.without(kind, key)
                after = 0.0
                if then is not None:
                    after = then[1] * influence(item.completion_id, then[0])
                group.votes += votes
                group.examples += 1
                group.estimate += (now - after) / all_influence if all_influence else 0.0
    return {kind: ranked(list(known.values())) for kind, known in groups.items()}


def ranked(groups: list[Group]) -> list[Group]:
    """Return groups in the order of their estimates; of very many those at both ends."""
    found = sorted(groups, key=lambda group: (group.estimate, group.key))
    half = MOST_GROUPS // 2
    return found if len(found) <= MOST_GROUPS else found[:half] + found[-half:]
