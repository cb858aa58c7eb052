"""Any order of votes, undos, decisions and gold marks gives the examples of a simple model."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from feedback_app.accounts.models import User
from feedback_app.feedback.adjudication.services import adjudication_decide, adjudication_undo
from feedback_app.feedback.gold.services import gold_mark, gold_unmark
from feedback_app.feedback.models import Completion, Example, GoldItem, Source, Verdict, Vote
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.web.errors import UserError
from tests.conftest import MakeCompletions
from tests.state_machine import EXAMPLES, DatabaseMachine, run_machine

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
ITEMS, PEOPLE = st.integers(0, 2), st.integers(0, 2)
VERDICTS = st.sampled_from([Verdict.UP, Verdict.DOWN])


@EXAMPLES
def test_examples_are_what_the_votes_amount_to(
    annotator: User,
    second_annotator: User,
    admin: User,
    make_completions: MakeCompletions,
    examples: int,
) -> None:
    people = [annotator, second_annotator, admin]
    items = make_completions(3)

    class Votes(DatabaseMachine):
        def __init__(self) -> None:
            super().__init__()
            self.votes: dict[tuple[int, int], str] = {}
            self.decided: dict[int, str] = {}
            self.gold: dict[int, str] = {}
            self.alive = {0, 1, 2}

        def completion(self, item: int) -> Completion:
            return Completion.objects.select_related("project", "prompt").get(pk=items[item].pk)

        @rule(item=ITEMS, person=PEOPLE, verdict=VERDICTS)
        def vote(self, item: int, person: int, verdict: Verdict) -> None:
            if item in self.alive:
                vote_cast(
                    completion=self.completion(item),
                    verdict=verdict,
                    by=people[person],
                    source=Source.ANNOTATE,
                )
                self.votes[item, person] = verdict

        @rule(item=ITEMS, person=PEOPLE)
        def undo(self, item: int, person: int) -> None:
            if item in self.alive:
                undone = vote_undo(
                    completion=self.completion(item), by=people[person], source=Source.ANNOTATE
                )
                assert undone == (self.votes.pop((item, person), None) is not None)

        @rule(item=ITEMS, verdict=VERDICTS)
        def decide(self, item: int, verdict: Verdict) -> None:
            if item not in self.alive:
                return
            try:
                adjudication_decide(
                    completion=self.completion(item), verdict=verdict, why="", by=admin
                )
            except UserError:
                assert item in self.gold
            else:
                assert item not in self.gold
                self.decided[item] = verdict

        @rule(item=ITEMS)
        def undecide(self, item: int) -> None:
            if item in self.alive and item not in self.gold:
                undone = adjudication_undo(completion=self.completion(item), by=admin)
                assert undone == (self.decided.pop(item, None) is not None)

        @rule(item=ITEMS, verdict=VERDICTS)
        def mark_gold(self, item: int, verdict: Verdict) -> None:
            if item not in self.alive:
                return
            try:
                gold_mark(completion=self.completion(item), verdict=verdict, why="", by=admin)
            except UserError:
                assert item in self.gold
            else:
                assert item not in self.gold
                self.gold[item] = verdict

        @rule(item=ITEMS)
        def unmark_gold(self, item: int) -> None:
            if self.gold.pop(item, None) is not None:
                gold_unmark(item=GoldItem.objects.get(completion=items[item].pk), by=admin)

        @precondition(lambda self: len(self.alive) > 1)
        @rule(item=ITEMS)
        def delete(self, item: int) -> None:
            if item in self.alive:
                self.completion(item).delete()
                self.alive.discard(item)
                self.gold.pop(item, None)
                self.decided.pop(item, None)
                self.votes = {key: of for key, of in self.votes.items() if key[0] != item}

        def expected(self, item: int) -> tuple[bool, float] | None:
            final = self.gold.get(item) or self.decided.get(item)
            if final:
                return final == Verdict.UP, 1.0
            cast = [verdict for (of, _), verdict in self.votes.items() if of == item]
            balance = sum(1 if verdict == Verdict.UP else -1 for verdict in cast)
            return (balance > 0, abs(balance) / len(cast)) if balance else None

        @invariant()
        def rows_agree(self) -> None:
            stored = Vote.objects.values_list("completion", "user", "verdict")
            assert set(stored) == {
                (items[item].pk, people[person].pk, verdict)
                for (item, person), verdict in self.votes.items()
            }
            rows = Example.objects.values_list("completion", "desirable", "weight")
            examples = {pk: (desirable, weight) for pk, desirable, weight in rows}
            counts = dict(Completion.objects.values_list("pk", "vote_count"))
            assert examples.keys() <= counts.keys()
            for item in self.alive:
                pk = items[item].pk
                assert examples.get(pk) == pytest.approx(self.expected(item))
                assert counts[pk] == sum(1 for of, _ in self.votes if of == item)

    run_machine(Votes, examples=examples)
